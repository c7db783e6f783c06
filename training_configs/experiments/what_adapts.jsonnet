// What adapts when a converged base model is adapted to each sentence: all trainable weights, the last two layers and the
// head, or the head alone, at the same rate or, as in training, at ten times that. And what a second stage of 300 updates of
// 8 tasks gains by other algorithms than first-order MAML, beside it and its null, an inner rate of 0. On the languages that
// one may choose on.
local inner_steps = import '../lib/inner_steps.libsonnet';
local experiment = import '../lib/experiment.libsonnet';
local second_stage = import '../lib/second_stage_experiment.libsonnet';

local seeds = [13370, 13371, 13372];
local languages = ['da', 'pt'];
local updates = 300;

local head = ['^classifier\\.'];
// Each by the published step.
local parts = {
  local part(names, rate=1e-5) = {
    'model.adaptation.enabled': true,
    'model.adaptation.inner_loop.optimizer': inner_steps.published_as_adam(rate),
    'model.adaptation.inner_loop.parameters': names,
  },

  all: part(null),
  // Of the 12 of the small encoder.
  two_layers: part(head + ['\\.layer\\.1[01]\\.']),
  head: part(head),
  head_10: part(head, 10 * 1e-5),
};

local of_training(names) = { 'trainer.meta_gradient.inner_loop.parameters': names };
local way(type, overrides={}) = second_stage.way('meta_en', { 'trainer.meta_gradient.type': type } + overrides);
local ways = {
  null_rate: second_stage.way('meta_en', second_stage.query_only),
  first_order: way('first_order_maml'),
  reptile: way('reptile'),
  anil: way('anil', of_training(head)),
  second_order_head: way('maml', of_training(head)),
};

local unadapted = ['%s_none' % language for language in languages];

{
  seeds: seeds,
  environment: second_stage.environment { METANER_UPDATES: updates, METANER_UPDATES_PER_VALIDATION: updates },
  systems: { base: second_stage.as_targets_say(second_stage.base) }
           + {
             [name]: second_stage.as_targets_say(ways[name]) { targets: unadapted }
             for name in std.objectFields(ways)
           },
  targets: experiment.settings_as_targets(languages, parts),
}
