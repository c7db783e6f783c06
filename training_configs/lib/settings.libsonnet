// What every config shares and a user may want to change: set the environment variable, or override the keys
// on the command line (-o). Defaults of the variables: allennlp_metaner/settings.py.
{
  encoder: std.extVar('METANER_ENCODER'),
  data: std.extVar('METANER_DATA'),
  weights: std.extVar('METANER_WEIGHTS'),
  seed: std.parseInt(std.extVar('METANER_SEED')),
}
