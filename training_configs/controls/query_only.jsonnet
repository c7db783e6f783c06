// Control: the same tasks without an inner loop, that is with an inner learning rate of 0; adaptation as usual.
(import '../meta_en.jsonnet') + { trainer+: { meta_gradient: { type: 'query_only', reduction: 'sum' } } }
