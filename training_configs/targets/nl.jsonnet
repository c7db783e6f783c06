// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/nl.jsonnet'"
{ validation_dataset_reader: { base_reader: (import '../lib/corpora.libsonnet').conll2002_nl.reader } }
