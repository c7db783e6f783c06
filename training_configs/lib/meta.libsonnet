// The full method: pseudo tasks, masking, max loss, first-order MAML.
(import 'common.libsonnet') {
  local config = self,

  num_updates:: 3000,
  updates_per_validation:: 300,
  training_indexer:: { type: 'entity_masking', indexer: config.plain_indexer, probability: 0.2 },

  dataset_reader: {
    type: 'pseudo_tasks',
    base_reader: config.source.reader { token_indexers: { tokens: config.training_indexer } },
    retriever: config.retriever,
  },
  model+: { max_loss_weight: 2.0 },
  data_loader: {
    batch_size: 32,
    shuffle: true,
    drop_last: true,
    batches_per_epoch: config.updates_per_validation,
  },
  trainer+: {
    type: 'meta',
    num_epochs: config.num_updates / config.updates_per_validation,
    learning_rate_scheduler: { type: 'linear_with_warmup', warmup_steps: config.num_updates / 10 },
    meta_gradient: {
      type: 'first_order_maml',
      inner_loop: { optimizer: { type: 'adam', lr: 3e-5 }, num_steps: 2 },
      reduction: 'sum',
    },
  },
}
