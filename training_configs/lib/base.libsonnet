// The base model: fine-tuning on the source language, without tasks, masking and max loss.
local settings = import 'settings.libsonnet';

(import 'common.libsonnet') {
  local config = self,

  num_epochs:: settings.epochs(7),
  warmup_steps:: 300,

  dataset_reader: config.source.reader { token_indexers: { tokens: config.training_indexer } },
  // The base model labels sentences as it is; see controls/ for the base model with adaptation.
  model+: { max_loss_weight: 0.0, adaptation+: { enabled: false } },
  // Sentences of like length together: less padding. The sampler also shuffles.
  data_loader+: { batch_sampler: { type: 'bucket', batch_size: settings.batch_size_of_process, sorting_keys: ['tokens'] } },
  trainer+: {
    num_epochs: config.num_epochs,
    learning_rate_scheduler: { type: 'linear_with_warmup', warmup_steps: config.warmup_steps },
  },
}
