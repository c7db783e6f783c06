// Table 4: without masking.
(import '../meta_en.jsonnet') + { training_indexer+:: { probability: 0.0 } }
