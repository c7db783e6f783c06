// Further plain training, with masking and max loss.
(import 'base_en.jsonnet') + { masked:: true }
