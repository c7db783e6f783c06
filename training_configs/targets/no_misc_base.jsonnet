// The base model for French and Chinese.
(import '../base_en.jsonnet') + { source+:: { reader+: { label_map: { MISC: 'O' } } } }
