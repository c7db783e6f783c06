// A student of soft labels with the small encoder.
(import '../lib/student.libsonnet') + {
  trainer+: {
    optimizer+: {
      lr: 5e-5,
      parameter_groups: [[['text_field_embedder'], { lr: 5e-5 }], [['classifier'], { lr: 5e-4 }]],
    },
  },
}
