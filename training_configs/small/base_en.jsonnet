// The base model with the small encoder.
(import '../lib/base.libsonnet') + (import '../lib/small.libsonnet') + {
  num_epochs:: 3,
  warmup_steps:: 130,
}
