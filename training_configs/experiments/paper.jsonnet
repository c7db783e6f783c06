// Tables 3 and 4 of the paper, and the controls. A target whose files you do not have: take it out here.
local experiment = import '../lib/experiment.libsonnet';

local updates = 3000;
local seeds = [13370, 13371, 13372, 13373, 13374];
local with_misc = ['es', 'nl', 'de'];
local without_misc = ['fr', 'zh'];

local for_targets(systems, targets) = std.mapWithKey(function(name, system) system { targets: targets }, systems);

{
  seeds: seeds,
  environment: { METANER_UPDATES: updates },
  systems: for_targets(experiment.systems(), with_misc)
           + for_targets(experiment.systems_without_misc(), without_misc),
  targets: { [target]: experiment.targets[target] for target in with_misc + without_misc },
}
