// What base model and full method have in common. Hidden fields (::) are the knobs of the leaf configs.
local corpora = import 'corpora.libsonnet';
local inner_steps = import 'inner_steps.libsonnet';
local settings = import 'settings.libsonnet';

{
  local config = self,

  encoder:: settings.encoder,
  source:: corpora.conll2003_en,
  plain_indexer:: { type: 'word_transformer', model_name: config.encoder },
  training_indexer:: config.plain_indexer,
  retriever:: {
    sentence_encoder: { type: 'transformer', model_name: config.encoder, pooling: 'cls' },
    num_neighbors: settings.neighbors,
  },

  // How many of the last checkpoints are kept: as many as are to be averaged.
  checkpoints:: 2,

  random_seed: settings.seed,
  numpy_seed: settings.seed,
  pytorch_seed: settings.seed,
  train_data_path: config.source.train,
  validation_data_path: config.source.dev,
  // Sentences to label, each with its support set from the source language.
  validation_dataset_reader: {
    type: 'pseudo_tasks',
    base_reader: config.source.reader { token_indexers: { tokens: config.plain_indexer } },
    pool_reader: config.source.reader,
    pool_path: config.source.train,
    retriever: config.retriever,
  },
  model: {
    type: 'max_loss_tagger',
    text_field_embedder: {
      token_embedders: {
        tokens: { type: 'word_transformer', model_name: config.encoder, max_length: 128, overlap: 64 },
      },
    },
    dropout: 0.1,
    max_loss_weight: error 'must override: lambda of Eq. 13',
    frozen_layers: 3,
    adaptation: { enabled: true, inner_loop: { optimizer: inner_steps.paper(1e-5), num_steps: 1 } },
  },
  [if std.length(settings.devices) > 1 then 'distributed']: { cuda_devices: settings.devices },
  // The same batches whatever the number of processes.
  data_loader: { type: 'sharded' },
  validation_data_loader: { type: 'sharded', batch_size: 32 },
  trainer: {
    type: 'reproducible',
    [if std.length(settings.devices) == 1 then 'cuda_device']: settings.devices[0],
    optimizer: { type: 'fused_adam', lr: 3e-5 },
    validation_metric: '+f1-measure-overall',
    checkpointer: { type: 'atomic', keep_most_recent_by_count: config.checkpoints },
    callbacks: [{ type: 'tensorboard' }, { type: 'epoch_loss' }],
  },
  evaluation: { type: 'adapting' },
  include_in_archive: ['encoder', 'pool'],
}
