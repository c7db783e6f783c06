// Meta-training on the demo corpus, from the base model that base.jsonnet trains (METANER_START). See README.md for
// how the settings were chosen.
local base = import 'base.jsonnet';

(import '../training_configs/second_stage/meta_en.jsonnet') + {
  source:: base.source,
  num_updates:: 30,
  updates_per_validation:: 30,

  // Tasks have two neighbours, adaptation takes one step of the published size on eight.
  validation_dataset_reader+: { retriever+: { num_neighbors: 8 } },
  data_loader+: { batch_size: 8 },
  trainer+: { checkpointer+: { keep_most_recent_by_count: 1 }, callbacks: [] },
  // Without the encoder, which stays in .encoders: packing it takes half a minute, and the demo goes nowhere.
  include_in_archive: ['pool'],
}
