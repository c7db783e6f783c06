// Learning rates for the width of the small encoder, with which fine-tuning suits English dev data.
local encoder_and_head = [
  [['text_field_embedder'], { lr: 1e-4 }],
  [['classifier'], { lr: 1e-3 }],
];

{
  trainer+: { optimizer+: { parameter_groups: encoder_and_head, lr: 1e-4 } },
  // Tags that fit together: a gain of one to two points over each word's own best tag (docs/results.md, question 7).
  model+: { constrain_decoding: true },
  // [CLS] of the final layer finds sentences with the same types of entities no more often than chance does, the
  // middle layer's mean twice as often (docs/results.md, question 5).
  retriever+:: { sentence_encoder+: { pooling: 'mean', layer: 'middle' } },
}
