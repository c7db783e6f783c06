// Control: the inner step of the published code in place of Adam's, in training and adaptation.
local inner_steps = import '../lib/inner_steps.libsonnet';

(import '../meta_en.jsonnet') + {
  model+: { adaptation+: { inner_loop+: { optimizer: inner_steps.published(1e-5) } } },
  trainer+: { meta_gradient+: { inner_loop+: { optimizer: inner_steps.published(3e-5) } } },
}
