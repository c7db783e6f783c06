// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/fr.jsonnet'"
(import '../lib/override.libsonnet')((import '../lib/corpora.libsonnet').europeana_fr.test_reader)
