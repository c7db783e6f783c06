// Table 6: base and full, fine-tuned on a little of the target's data. In the folder of paper.jsonnet, it starts from
// what was trained there.
local experiment = import '../lib/experiment.libsonnet';

local updates = 3000;
local seeds = [13370, 13371, 13372, 13373, 13374];
local percents = [1, 5];
local targets = { es: 'conll2002_es', nl: 'conll2002_nl', de: 'conll2003_de' };

local starts = { [name]: experiment.systems()[name] for name in ['base', 'full'] };

experiment.low_resource(starts, targets, percents) {
  seeds: seeds,
  environment: { METANER_UPDATES: updates },
}
