// A student of hard labels, of words on which all teachers agree.
(import '../lib/student.libsonnet') + {
  word_weights:: 'vote',
  model+: { soft_label_loss: 'squared_error', hard_label_weight: 1.0 },
}
