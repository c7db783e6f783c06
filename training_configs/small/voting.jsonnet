// A student of the tags on which all teachers agree, with the small encoder.
(import 'student.jsonnet') + (import '../lib/voting.libsonnet')
