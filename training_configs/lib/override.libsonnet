// What `-o` takes to read another layout from an archive. AllenNLP replaces the whole of a nested object, token
// indexers and all, but a key with dots changes one setting and leaves its neighbours.
function(reader) {
  ['validation_dataset_reader.base_reader.' + key]: reader[key]
  for key in std.objectFields(reader)
}
