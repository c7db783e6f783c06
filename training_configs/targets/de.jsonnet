// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/de.jsonnet'"
(import '../lib/override.libsonnet')((import '../lib/corpora.libsonnet').conll2003_de.reader)
