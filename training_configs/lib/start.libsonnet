// Start from a finished run (METANER_START): its labels and weights. To be added to any config.
local settings = import 'settings.libsonnet';
local weights = settings.start + '/' + settings.start_weights;

{
  vocabulary: { type: 'from_files', directory: settings.start + '/vocabulary' },
  model+: { initializer: { regexes: [['.*', { type: 'pretrained', weights_file_path: weights }]] } },
}
