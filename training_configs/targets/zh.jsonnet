// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/zh.jsonnet'"
{ validation_dataset_reader: { base_reader: (import '../lib/corpora.libsonnet').msra_zh.reader } }
