// Other steps and bfloat16 in adaptation, on English dev: in the folder of small.jsonnet, with the model trained there.
// The settings are the report's targets, so its averages over targets mean nothing. Without adaptation: "best dev F1".
local corpora = import '../lib/corpora.libsonnet';
local small = import 'small.jsonnet';

local seeds = [13370];
// The type of numbers, and the learning rate; the paper's is 1e-5.
local settings = [['float32', 1e-5], ['float32', 1e-4], ['float32', 3e-4], ['bfloat16', 1e-5]];

local dev(dtype, rate) = {
  file: corpora.conll2003_en.dev,
  overrides: { 'model.adaptation.inner_loop.dtype': dtype, 'model.adaptation.inner_loop.optimizer.lr': rate },
};

small {
  seeds: seeds,
  systems: { full: small.systems.full },
  targets: { ['%s_%.5f' % setting]: dev(setting[0], setting[1]) for setting in settings },
}
