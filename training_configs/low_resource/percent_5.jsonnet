// Table 6: 5 % of the target's training data.
(import '../lib/low_resource.libsonnet') + { fraction:: 0.05 }
