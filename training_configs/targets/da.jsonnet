// Overrides for an archive: allennlp evaluate ARCHIVE FILE -o "import 'training_configs/targets/da.jsonnet'"
// The corpus has no MISC, so a model of four types is scored as if it predicted none.
(import '../lib/override.libsonnet')((import '../lib/corpora.libsonnet').uner_da.reader) {
  'model.ignored_types': ['MISC'],
}
