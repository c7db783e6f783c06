// Control: inner steps on one support sentence after the other, the nearest first, in training and adaptation.
local one_by_one = { inner_loop+: { batching: 'one_by_one' } };

(import '../meta_en.jsonnet') + {
  model+: { adaptation+: one_by_one },
  trainer+: { meta_gradient+: one_by_one },
}
