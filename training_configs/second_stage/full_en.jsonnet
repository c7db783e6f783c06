// The full method from the run METANER_START: with masking and max loss.
(import 'meta_en.jsonnet') + { masked:: true }
