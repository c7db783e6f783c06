// A student of soft labels, of which those count less that the most similar words do not share.
(import '../lib/student.libsonnet') + { word_weights:: 'knn' }
