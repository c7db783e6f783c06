// A student of soft labels, from the pretrained encoder: the published way.
(import '../lib/student.libsonnet') + {
  num_epochs:: 3,
  model+: { initializer: null },
  trainer+: { optimizer+: { lr: 3e-5 } },
}
