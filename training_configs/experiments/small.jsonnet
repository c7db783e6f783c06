// The same comparison in little, with the small encoder (learning rates: lib/small.libsonnet), for Spanish and Dutch.
local experiment = import '../lib/experiment.libsonnet';
local small = import '../lib/small.libsonnet';

local updates = 500;
local updates_per_validation = 100;
local seeds = [13370, 13371, 13372];
// For all systems but base and full.
local few_seeds = [13370];
local targets = ['es', 'nl'];

local learning_rates = { ['trainer.optimizer.' + key]: small.trainer.optimizer[key] for key in ['lr', 'parameter_groups'] };
// As many updates for the base model, so that none has seen more.
local base = learning_rates {
  'data_loader.batches_per_epoch': updates_per_validation,
  'trainer.num_epochs': updates / updates_per_validation,
  'trainer.learning_rate_scheduler.warmup_steps': std.ceil(updates / 10),
};

{
  seeds: seeds,
  environment: { METANER_UPDATES: updates, METANER_UPDATES_PER_VALIDATION: updates_per_validation },
  systems: experiment.systems(base, learning_rates, { seeds: few_seeds }),
  targets: { [target]: experiment.targets[target] for target in targets },
}
