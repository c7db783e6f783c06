// Meta-training from the run METANER_START, with the published inner step, without masking and max loss.
local inner_steps = import '../lib/inner_steps.libsonnet';

(import '../small/meta_en.jsonnet') + (import '../lib/second_stage.libsonnet') + {
  local config = self,
  trainer+: { meta_gradient+: { inner_loop+: { optimizer: inner_steps.published_as_adam(config.rate) } } },
}
