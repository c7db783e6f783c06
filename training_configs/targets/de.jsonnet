// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/de.jsonnet'"
{ validation_dataset_reader: { base_reader: (import '../lib/corpora.libsonnet').conll2003_de.reader } }
