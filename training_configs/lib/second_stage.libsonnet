// Further training of a small model that has converged on the source language: the same for all ways of training. All
// learning rates hang together as in the paper: the inner loop's (alpha) is that of the outer one (beta), adaptation's
// (gamma) a third of it.
local inner_steps = import 'inner_steps.libsonnet';
local settings = import 'settings.libsonnet';

(import 'start.libsonnet') + {
  local config = self,

  rate:: 3e-5,
  head_rate:: 10 * config.rate,
  // Sentences or tasks of an update come from METANER_BATCH_SIZE, the number of updates from METANER_UPDATES.
  num_updates:: settings.updates(),
  updates_per_validation:: std.min(settings.updates_per_validation(), config.num_updates),
  checkpoints:: 5,
  masked:: false,

  training_indexer:: if config.masked
  then { type: 'entity_masking', indexer: config.plain_indexer, probability: 0.2 }
  else config.plain_indexer,

  model+: {
    max_loss_weight: if config.masked then 2.0 else 0.0,
    adaptation+: { inner_loop+: { optimizer: inner_steps.published_as_adam(config.rate / 3) } },
  },
  data_loader+: { batches_per_epoch: config.updates_per_validation },
  trainer+: {
    optimizer+: {
      lr: config.rate,
      parameter_groups: [[['text_field_embedder'], { lr: config.rate }], [['classifier'], { lr: config.head_rate }]],
    },
    num_epochs: config.num_updates / config.updates_per_validation,
    learning_rate_scheduler: { type: 'linear_with_warmup', warmup_steps: std.ceil(config.num_updates / 10) },
  },
}
