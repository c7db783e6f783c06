// The same comparison in little, with the small encoder, for Spanish and Dutch. Learning rates: small_search.jsonnet.
local experiment = import '../lib/experiment.libsonnet';
local small = import '../lib/small_experiment.libsonnet';

local seeds = [13370, 13371, 13372];
// For all systems but base and full.
local few_seeds = [13370];
local targets = ['es', 'nl'];

{
  seeds: seeds,
  environment: small.environment,
  systems: experiment.systems(
    small.base(small.learning_rates.base), small.meta(small.learning_rates.full), { seeds: few_seeds }
  ) + {
    // Control: as many sentences as the full method sees, queries and support sets.
    base_24: self.base { environment: { METANER_BATCH_SIZE: 24 }, seeds: few_seeds },
  },
  targets: { [target]: experiment.targets[target] for target in targets },
}
