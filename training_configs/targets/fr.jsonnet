// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/fr.jsonnet'"
{ validation_dataset_reader: { base_reader: (import '../lib/corpora.libsonnet').europeana_fr.test_reader } }
