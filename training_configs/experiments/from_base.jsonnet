// From one converged base model a seed, 14,400 sentences each: plain training, the queries' own gradient (an inner rate
// of 0, 4,800 tasks whose support is not looked at), first-order MAML with the published step and with Adam as in
// small.jsonnet; each without and with masking and max loss. `_adapted` and `_mean` (of the last five checkpoints) are
// evaluations of the same trainings. On the languages that one may choose on; the targets: from_base_targets.jsonnet.
local experiment = import '../lib/experiment.libsonnet';
local second_stage = import '../lib/second_stage_experiment.libsonnet';

local seeds = [13370, 13371, 13372];

local ways = second_stage.ways;
local maml = { [name]: ways[name] for name in std.objectFields(ways) if std.startsWith(name, 'maml') };

{
  seeds: seeds,
  environment: second_stage.environment,
  // The first one is what the others are compared with.
  systems: { plain: ways.plain, base: second_stage.base }
           + ways
           + second_stage.averaged(ways)
           + second_stage.adapted({ base: second_stage.base, plain: ways.plain } + maml),
  targets: experiment.development,
}
