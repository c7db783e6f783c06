// Table 6: fine-tune a trained model on a little of the target's training data; label without adaptation.
local corpora = import 'corpora.libsonnet';
local settings = import 'settings.libsonnet';

(import 'base.libsonnet') + (import 'start.libsonnet') + {
  local config = self,
  local target = corpora[settings.target],

  fraction:: error 'must override: the share of the target data',
  num_epochs:: 10,

  dataset_reader: target.reader {
    token_indexers: { tokens: config.training_indexer },
    fraction: config.fraction,
    seed: settings.seed,
  },
  // The paper labels without adaptation here, so nothing is retrieved.
  validation_dataset_reader: target.test_reader { token_indexers: { tokens: config.plain_indexer } },
  train_data_path: target.train,
  // There is no labelled data to choose an epoch by: the last one counts.
  validation_data_path: null,
  include_in_archive: ['encoder'],
  trainer+: {
    optimizer: { type: 'fused_adam', lr: 1e-5 },
    learning_rate_scheduler: null,
  },
}
