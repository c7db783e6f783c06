// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/zh.jsonnet'"
(import '../lib/override.libsonnet')((import '../lib/corpora.libsonnet').msra_zh.reader)
