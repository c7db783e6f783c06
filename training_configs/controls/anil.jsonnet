// Control: the inner loop adapts the head alone (ANIL), in training and adaptation.
local head = { inner_loop+: { parameters: ['^classifier\\.'] } };

(import '../meta_en.jsonnet') + {
  model+: { adaptation+: head },
  trainer+: { meta_gradient+: head { type: 'anil' } },
}
