// What every config shares and a user may want to change: set the environment variable, or override the keys
// on the command line (-o). Defaults of the variables: allennlp_metaner/settings.py.
{
  encoder: std.extVar('METANER_ENCODER'),
  data: std.extVar('METANER_DATA'),
  start: std.extVar('METANER_START'),
  start_weights: std.extVar('METANER_START_WEIGHTS'),
  base: std.extVar('METANER_BASE'),
  target: std.extVar('METANER_TARGET'),
  pseudo_labels: std.extVar('METANER_PSEUDO_LABELS'),
  updates: std.parseInt(std.extVar('METANER_UPDATES')),
  updates_per_validation: std.parseInt(std.extVar('METANER_UPDATES_PER_VALIDATION')),
  batch_size: std.parseInt(std.extVar('METANER_BATCH_SIZE')),
  neighbors: std.parseInt(std.extVar('METANER_NEIGHBORS')),
  seed: std.parseInt(std.extVar('METANER_SEED')),
}
