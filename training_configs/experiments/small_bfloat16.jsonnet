// What adaptation in bfloat16 costs, on English dev: in the folder of small.jsonnet, with the models trained there.
local corpora = import '../lib/corpora.libsonnet';
local small = import 'small.jsonnet';

local dev(dtype) = {
  file: corpora.conll2003_en.dev,
  overrides: { 'model.adapter.inner_loop.dtype': dtype },
};

small {
  systems: { full: small.systems.full },
  targets: { [dtype]: dev(dtype) for dtype in ['float32', 'bfloat16'] },
}
