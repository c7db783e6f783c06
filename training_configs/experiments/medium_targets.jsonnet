// The targets' test files, for the report at the end. In the folder of medium.jsonnet, with what was trained there.
local experiment = import '../lib/experiment.libsonnet';

local targets = ['es', 'nl'];

(import 'medium.jsonnet') + { targets: { [target]: experiment.targets[target] for target in targets } }
