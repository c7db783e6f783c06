// What the mean of the last checkpoints of one run gains: the base model's three passes in ten parts, a checkpoint after
// each. On English dev and the languages that one may choose on.
local experiment = import '../lib/experiment.libsonnet';
local second_stage = import '../lib/second_stage_experiment.libsonnet';

local seeds = [13370, 13371, 13372];
local last = [1, 2, 3, 5];
// Of 32 sentences: three passes over 14,041 of them.
local updates = 1320;
local parts = 10;

local base = second_stage.trained_base {
  overrides: {
    'data_loader.batches_per_epoch': updates / parts,
    'trainer.num_epochs': parts,
    'trainer.checkpointer.keep_most_recent_by_count': parts + 1,
  },
};

{
  seeds: seeds,
  systems: { ['last_%d' % count]: base { last: count } for count in last },
  targets: experiment.development,
}
