// What every config shares and a user may want to change: set the environment variable, or override the keys
// on the command line (-o). Defaults of the variables: allennlp_metaner/settings.py.
local number(value, default) = if value == '' then default else std.parseInt(value);
local is_number(text) = std.length(text) > 0 && std.all([std.member('-0123456789', char) for char in std.stringChars(text)]);
local numbers(name, value) =
  local parts = [std.stripChars(part, ' ') for part in std.split(value, ',')];
  if value == '' then []
  else
    assert std.all([is_number(part) for part in parts]) : '%s=%s must be numbers like 0,1' % [name, value];
    [std.parseInt(part) for part in parts];

{
  local settings = self,

  encoder: std.extVar('METANER_ENCODER'),
  data: std.extVar('METANER_DATA'),
  start: std.extVar('METANER_START'),
  start_weights: std.extVar('METANER_START_WEIGHTS'),
  base: std.extVar('METANER_BASE'),
  target: std.extVar('METANER_TARGET'),
  pseudo_labels: std.extVar('METANER_PSEUDO_LABELS'),
  // These differ from config to config where they are not set.
  updates(default=3000):: number(std.extVar('METANER_UPDATES'), default),
  updates_per_validation(default=300):: number(std.extVar('METANER_UPDATES_PER_VALIDATION'), default),
  epochs(default):: number(std.extVar('METANER_EPOCHS'), default),
  batch_size: std.parseInt(std.extVar('METANER_BATCH_SIZE')),
  // GPUs by their numbers; -1 is a process on CPUs. Each device has a process of its own, and the same share of a batch.
  devices: numbers('METANER_DEVICES', std.extVar('METANER_DEVICES')),
  batch_size_of_process:
    local processes = std.max(1, std.length(settings.devices));
    assert settings.batch_size % processes == 0 :
           'METANER_BATCH_SIZE=%d must be a multiple of the number of METANER_DEVICES, which is %d'
           % [settings.batch_size, processes];
    settings.batch_size / processes,
  neighbors: std.parseInt(std.extVar('METANER_NEIGHBORS')),
  seed: std.parseInt(std.extVar('METANER_SEED')),
}
