// The base model on the demo corpus: plain fine-tuning, from which meta.jsonnet goes on. See README.md.
(import '../training_configs/small/base_en.jsonnet') + {
  local columns = { type: 'ner_columns', num_columns: 2, separator: '\t' },
  source:: {
    reader: columns,
    train: 'demo/data/english.train.bio',
    dev: 'demo/data/english.dev.bio',
  },
  num_epochs:: 6,
  warmup_steps:: 20,

  data_loader+: { batch_sampler+: { batch_size: 16 } },
  trainer+: {
    optimizer+: {
      parameter_groups: [[['text_field_embedder'], { lr: 3e-4 }], [['classifier'], { lr: 5e-3 }]],
    },
    checkpointer+: { keep_most_recent_by_count: 1 },
    callbacks: [],
  },
  include_in_archive: [],
}
