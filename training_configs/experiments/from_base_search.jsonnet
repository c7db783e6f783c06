// Learning rates for from_base.jsonnet: as many for every way of training, and the inner rate for MAML. On the languages
// that one may choose on, with one seed.
local experiment = import '../lib/experiment.libsonnet';
local second_stage = import '../lib/second_stage_experiment.libsonnet';

local seeds = [13370];
// In millionths, as in the names of the systems.
local rates = [15, 30, 60];
// Of the outer rate.
local inner_rates = [1, 3];

local ways = second_stage.ways;

{
  seeds: seeds,
  environment: second_stage.environment,
  systems: { base: second_stage.base { targets: [] } } + {
    ['%s_%d' % [name, rate]]: ways[name] { overrides+: second_stage.rates(rate * 1e-6) }
    for name in ['plain', 'query_only']
    for rate in rates
  } + {
    ['maml_%d_inner_%d' % [rate, inner]]: ways.maml {
      overrides+: second_stage.rates(rate * 1e-6) + second_stage.inner_rates(rate * 1e-6, inner),
    }
    for rate in rates
    for inner in inner_rates
  },
  targets: experiment.development,
}
