// Follows the authors' published code where it differs from the paper (docs/architecture.md lists the points).
local bert_adam = (import 'lib/inner_steps.libsonnet').published;

(import 'meta_en.jsonnet') + {
  training_indexer+:: { first_subword_only: true },
  retriever+:: { skip_most_similar: true },

  dataset_reader+: { mask_support: false },
  vocabulary: { tokens_to_add: { labels: ['[PAD]', 'X', '[CLS]', '[SEP]'] } },
  model+: {
    text_field_embedder+: { token_embedders+: { tokens+: { output: 'subwords' } } },
    subword_labels: true,
    loss_reduction: 'token',
    frozen_layers: 4,
    adaptation: { enabled: true, inner_loop: { optimizer: bert_adam(1e-5), num_steps: 1 }, dropout: true },
  },
  trainer+: {
    optimizer: bert_adam(3e-5),
    meta_gradient+: { inner_loop+: { optimizer: bert_adam(3e-5) } },
  },
}
