// Table 6 in little: in the folder of small.jsonnet, it starts from what was trained there.
local experiment = import '../lib/experiment.libsonnet';
local small = import '../lib/small_experiment.libsonnet';

local seeds = [13370];
local percents = [1, 5];
local targets = { es: 'conll2002_es', nl: 'conll2002_nl' };

local rates = small.learning_rates;
local systems = experiment.systems(small.base(rates.base), small.meta(rates.full));
local starts = { [name]: systems[name] for name in ['base', 'full'] };

experiment.low_resource(
  starts,
  targets,
  percents,
  // A third of those of the training, as in the paper (1e-5 and 3e-5).
  small.with_rates(rates.full / 3, small.head_rate / 3),
  // Of fine-tuning, as in the paper.
  { METANER_BATCH_SIZE: 32 },
) {
  seeds: seeds,
  environment: small.environment,
}
