// The full method with the small encoder.
(import '../lib/meta.libsonnet') + (import '../lib/small.libsonnet') + {
  num_updates:: 360,
  updates_per_validation:: 60,
}
