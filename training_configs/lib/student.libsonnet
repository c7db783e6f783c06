// A student: learns from pseudo labels of text in the target language (allennlp metaner-pseudo-label), starting
// from its teacher's weights, and labels without adaptation.
local corpora = import 'corpora.libsonnet';
local settings = import 'settings.libsonnet';

(import 'base.libsonnet') + (import 'start.libsonnet') + {
  local config = self,
  // The reader of the file to evaluate the student on.
  local target = corpora[settings.target],

  num_epochs:: 1,
  word_weights:: 'none',
  warmup_share:: 0.1,

  vocabulary: { type: 'from_files', directory: settings.pseudo_labels + '/vocabulary' },
  dataset_reader: {
    type: 'pseudo_labels',
    token_indexers: { tokens: config.training_indexer },
    word_weights: config.word_weights,
  },
  validation_dataset_reader: target.test_reader { token_indexers: { tokens: config.plain_indexer } },
  train_data_path: settings.pseudo_labels,
  // There is no labelled data to choose an epoch by: the last one counts.
  validation_data_path: null,
  // The best tags that fit together: docs/results.md, question 7.
  model+: { loss_reduction: 'token', constrain_decoding: true },
  include_in_archive: ['encoder'],
  trainer+: {
    optimizer: { type: 'fused_adam', lr: 1.5e-5, weight_decay: 0.01 },
    learning_rate_scheduler: { type: 'slanted_triangular', cut_frac: config.warmup_share, ratio: 32 },
    grad_norm: 1.0,
  },
}
