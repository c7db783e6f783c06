// What `-o` takes to read a file of another kind from an archive: the reader takes the place of the archive's. With
// METANER_ENCODER as in training. For other columns, see override.libsonnet.
local settings = import 'settings.libsonnet';

function(reader) {
  'validation_dataset_reader.base_reader': reader {
    token_indexers: { tokens: { type: 'word_transformer', model_name: settings.encoder } },
  },
}
