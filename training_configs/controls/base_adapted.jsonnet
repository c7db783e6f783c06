// Control: the base model with adaptation at test time, but without meta-training.
(import '../base_en.jsonnet') + { model+: { adaptation+: { enabled: true } } }
