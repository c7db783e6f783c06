// Control: second-order MAML in place of first-order MAML: exact, and several times slower.
(import '../meta_en.jsonnet') + { trainer+: { meta_gradient+: { type: 'maml' } } }
