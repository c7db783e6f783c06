// The full method with the small encoder.
local settings = import '../lib/settings.libsonnet';

(import '../lib/meta.libsonnet') + (import '../lib/small.libsonnet') + {
  local config = self,

  num_updates:: settings.updates(360),
  updates_per_validation:: std.min(settings.updates_per_validation(60), config.num_updates),
}
