// What the small grids have in common: the small encoder (12 x 384), and as much training as two cores can do.
local updates = 500;
// Tasks of an update of the full method, sentences of an update of the base model.
local batch_size = 8;
local updates_per_validation = 250;

local head_rate = 1e-3;

local with_rates(encoder, head=head_rate) = {
  'trainer.optimizer.lr': encoder,
  'trainer.optimizer.parameter_groups': [
    [['text_field_embedder'], { lr: encoder }],
    [['classifier'], { lr: head }],
  ],
};

{
  // Of the encoder: the best of experiments/small_search.jsonnet.
  learning_rates:: { base: 2e-4, full: 2e-4 },
  head_rate:: head_rate,
  with_rates:: with_rates,
  environment: {
    METANER_UPDATES: updates,
    METANER_UPDATES_PER_VALIDATION: updates_per_validation,
    METANER_BATCH_SIZE: batch_size,
  },
  // Overrides of the configs, by the learning rate of the encoder.
  meta(encoder):: with_rates(encoder),
  // As many updates for the base model; a task shows three times as many sentences.
  base(encoder):: with_rates(encoder) {
    'data_loader.batches_per_epoch': updates_per_validation,
    'trainer.num_epochs': updates / updates_per_validation,
    'trainer.learning_rate_scheduler.warmup_steps': std.ceil(updates / 10),
  },
}
