// Table 6: 1 % of the target's training data.
(import '../lib/low_resource.libsonnet') + { fraction:: 0.01 }
