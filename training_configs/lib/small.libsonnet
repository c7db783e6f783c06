// For the 12 x 384 encoder of `make encoder`: learning rates for its width, chosen on English dev data.
local encoder_and_head = [
  [['text_field_embedder'], { lr: 1e-4 }],
  [['classifier'], { lr: 1e-3 }],
];

{
  trainer+: { optimizer+: { parameter_groups: encoder_and_head, lr: 1e-4 } },
}
