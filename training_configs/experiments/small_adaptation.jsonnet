// Other steps and bfloat16 in adaptation, on English dev: in the folder of small.jsonnet, with the model trained there.
// The settings are the report's targets, so its averages over targets mean nothing. Without adaptation: "best dev F1".
local corpora = import '../lib/corpora.libsonnet';
local small = import 'small.jsonnet';

local seeds = [13370];
// The paper's is 1e-5.
local learning_rates = [1e-5, 1e-4, 3e-4];
local dtypes = ['float32', 'bfloat16'];

local dev(dtype, rate) = {
  file: corpora.conll2003_en.dev,
  overrides: { 'model.adapter.inner_loop.dtype': dtype, 'model.adapter.inner_loop.optimizer.lr': rate },
};

small {
  seeds: seeds,
  systems: { full: small.systems.full },
  targets: {
    ['%s_%.5f' % [dtype, rate]]: dev(dtype, rate)
    for dtype in dtypes
    for rate in (if dtype == 'float32' then learning_rates else learning_rates[:1])
  },
}
