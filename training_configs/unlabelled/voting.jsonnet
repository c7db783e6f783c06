// A student of the tags on which all teachers agree, from the weights of one.
(import '../lib/student.libsonnet') + (import '../lib/voting.libsonnet')
