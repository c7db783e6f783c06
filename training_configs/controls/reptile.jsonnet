// Control: Reptile in place of first-order MAML: the gradient is the way that the inner loop went.
(import '../meta_en.jsonnet') + { trainer+: { meta_gradient+: { type: 'reptile' } } }
