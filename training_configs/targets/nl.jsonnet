// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/nl.jsonnet'"
(import '../lib/override.libsonnet')((import '../lib/corpora.libsonnet').conll2002_nl.reader)
