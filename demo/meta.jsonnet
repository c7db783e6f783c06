// The full method on the demo corpus, within minutes on two cores. See README.md for how these were chosen.
local inner_steps = import '../training_configs/lib/inner_steps.libsonnet';

(import '../training_configs/small/meta_en.jsonnet') + {
  local columns = { type: 'ner_columns', num_columns: 2, separator: '\t' },
  source:: {
    reader: columns,
    train: 'demo/data/english.train.bio',
    dev: 'demo/data/english.dev.bio',
  },
  num_updates:: 100,
  updates_per_validation:: 25,

  // Tasks have two neighbours, adaptation takes one step of the published size on eight.
  validation_dataset_reader+: { retriever+: { num_neighbors: 8 } },
  model+: { adaptation+: { inner_loop+: { optimizer: inner_steps.published_as_adam(1e-5) } } },
  data_loader+: { batch_size: 8 },
  trainer+: {
    optimizer+: {
      parameter_groups: [[['text_field_embedder'], { lr: 3e-4 }], [['classifier'], { lr: 2e-2 }]],
    },
    checkpointer+: { keep_most_recent_by_count: 1 },
    callbacks: [],
  },
  // Without the encoder, which stays in .encoders: packing it takes half a minute, and the demo goes nowhere.
  include_in_archive: ['pool'],
}
