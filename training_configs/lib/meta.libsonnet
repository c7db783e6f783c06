// The full method: pseudo tasks, masking, max loss, first-order MAML.
local inner_steps = import 'inner_steps.libsonnet';
local settings = import 'settings.libsonnet';

(import 'common.libsonnet') {
  local config = self,

  num_updates:: settings.updates(),
  updates_per_validation:: std.min(settings.updates_per_validation(), config.num_updates),
  assert config.num_updates % config.updates_per_validation == 0 :
         'the number of updates (METANER_UPDATES) must be a multiple of %d, those between two validations'
         % config.updates_per_validation,
  training_indexer:: { type: 'entity_masking', indexer: config.plain_indexer, probability: 0.2 },

  dataset_reader: {
    type: 'pseudo_tasks',
    base_reader: config.source.reader { token_indexers: { tokens: config.training_indexer } },
    retriever: config.retriever,
  },
  model+: { max_loss_weight: 2.0 },
  data_loader+: {
    batch_size: settings.batch_size_of_process,
    shuffle: true,
    drop_last: true,
    batches_per_epoch: config.updates_per_validation,
  },
  trainer+: {
    type: 'meta',
    num_epochs: config.num_updates / config.updates_per_validation,
    learning_rate_scheduler: { type: 'linear_with_warmup', warmup_steps: std.ceil(config.num_updates / 10) },
    meta_gradient: {
      type: 'first_order_maml',
      inner_loop: { optimizer: inner_steps.paper(3e-5), num_steps: 2 },
      reduction: 'sum',
    },
  },
}
