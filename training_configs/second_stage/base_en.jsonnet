// Further plain training of the run METANER_START, on its own data.
(import '../small/base_en.jsonnet') + (import '../lib/second_stage.libsonnet')
