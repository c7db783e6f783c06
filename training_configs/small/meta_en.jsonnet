// The full method with the small encoder.
(import '../lib/meta.libsonnet') + (import '../lib/small.libsonnet') + {
  num_updates:: 500,
  updates_per_validation:: 50,
}
