// The learning rates of small.jsonnet: as many tried for the base model as for the full method, on English dev.
local corpora = import '../lib/corpora.libsonnet';
local experiment = import '../lib/experiment.libsonnet';
local small = import '../lib/small_experiment.libsonnet';

local seeds = [13370];
local learning_rates = [1e-4, 2e-4, 4e-4];
local systems(rate) = experiment.systems(small.base(rate), small.meta(rate));

{
  seeds: seeds,
  environment: small.environment,
  systems: {
    ['%s_%g' % [name, rate]]: systems(rate)[name] { adapt: false }
    for rate in learning_rates
    for name in ['base', 'full']
  },
  targets: { en: { file: corpora.conll2003_en.dev } },
}
