// Table 4: without max loss and masking.
(import 'no_max_loss.jsonnet') + { training_indexer+:: { probability: 0.0 } }
