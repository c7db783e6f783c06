// From the pretrained small encoder, 3,000 updates of 8 tasks, that is 72,000 sentences: plain training on as many, the
// queries' own gradient, first-order MAML, and the full method. On the languages that one may choose on; the targets:
// medium_targets.jsonnet. Learning rates: those of small/, with the inner ones in the paper's proportions.
local experiment = import '../lib/experiment.libsonnet';
local second_stage = import '../lib/second_stage_experiment.libsonnet';

local seeds = [13370, 13371, 13372];
local updates = 3000;
local updates_per_validation = 300;
local tasks = 8;
local rate = 1e-4;

local unmasked = {
  'dataset_reader.base_reader.token_indexers.tokens.probability': 0.0,
  'model.max_loss_weight': 0.0,
};
local common = {
  'trainer.checkpointer.keep_most_recent_by_count': 5,
};
local meta(overrides={}, inner_rates=second_stage.inner_rates(rate)) = {
  config: '../small/meta_en.jsonnet',
  overrides: common + inner_rates + {
    'data_loader.batches_per_epoch': updates_per_validation,
    'trainer.num_epochs': updates / updates_per_validation,
    'trainer.learning_rate_scheduler.warmup_steps': updates / 10,
  } + overrides,
  environment: { METANER_BATCH_SIZE: tasks },
  adapt: false,
  last: 1,
};
local systems = {
  base: {
    config: '../small/base_en.jsonnet',
    overrides: common + second_stage.adaptation_rate(rate) + {
      'data_loader.batches_per_epoch': updates_per_validation,
      'trainer.num_epochs': updates / updates_per_validation,
      'trainer.learning_rate_scheduler.warmup_steps': updates / 10,
    },
    environment: { METANER_BATCH_SIZE: tasks * 3 },
    adapt: false,
    last: 1,
  },
  query_only: meta(unmasked + second_stage.query_only, second_stage.adaptation_rate(rate)),
  maml: meta(unmasked),
  full: meta(),
};

{
  seeds: seeds,
  systems: systems
           + second_stage.averaged(systems)
           + second_stage.adapted({ [name]: systems[name] for name in ['base', 'maml', 'full'] }),
  targets: experiment.development,
}
