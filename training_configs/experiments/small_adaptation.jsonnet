// Other steps in adaptation, on English dev: in the folder of small.jsonnet, with the model trained there.
// The settings are the report's targets, so its averages over targets mean nothing. Without adaptation: "best dev F1".
local corpora = import '../lib/corpora.libsonnet';
local small = import 'small.jsonnet';

local seeds = [13370];
// The learning rate; the paper's is 1e-5.
local rates = [1e-5, 1e-4, 3e-4];

local dev(rate) = {
  file: corpora.conll2003_en.dev,
  overrides: { 'model.adaptation.inner_loop.optimizer.lr': rate },
};

small {
  seeds: seeds,
  systems: { full: small.systems.full },
  targets: { ['%.5f' % rate]: dev(rate) for rate in rates },
}
