// Table 6: base and full, fine-tuned on a little of the target's data. In the folder of paper.jsonnet, it starts from
// what was trained there.
local corpora = import '../lib/corpora.libsonnet';
local experiment = import '../lib/experiment.libsonnet';

local updates = 3000;
local seeds = [13370, 13371, 13372, 13373, 13374];
local percents = [1, 5];
local targets = { es: 'conll2002_es', nl: 'conll2002_nl', de: 'conll2003_de' };

local starts = { [name]: experiment.systems()[name] { targets: [] } for name in ['base', 'full'] };

{
  seeds: seeds,
  environment: { METANER_UPDATES: updates },
  systems: starts + {
    ['%s_%s_%d' % [start, target, percent]]: {
      config: '../low_resource/percent_%d.jsonnet' % percent,
      start: start,
      environment: { METANER_TARGET: targets[target] },
      targets: [target],
    }
    for start in std.objectFields(starts)
    for target in std.objectFields(targets)
    for percent in percents
  },
  // The archives read their own target as it is.
  targets: { [target]: { file: corpora[targets[target]].test } for target in std.objectFields(targets) },
}
