// The base model with the small encoder.
local settings = import '../lib/settings.libsonnet';

(import '../lib/base.libsonnet') + (import '../lib/small.libsonnet') + {
  num_epochs:: settings.epochs(3),
  warmup_steps:: 130,
}
