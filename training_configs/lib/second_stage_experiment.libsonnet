// Ways of training on from one converged base model a seed, with as many sentences each.
local inner_steps = import 'inner_steps.libsonnet';
local settings = import 'settings.libsonnet';

local updates = 600;
local updates_per_validation = 120;
local tasks = 8;
// A task shows its query and its support set.
local sentences = tasks * 3;
local epochs_of_base = 3;
// An update of the base model; `tasks` is for what comes after it.
local sentences_of_base = 32;

local query_only = { 'trainer.meta_gradient': { type: 'query_only', reduction: 'sum' } };
local adam = {
  'trainer.meta_gradient.inner_loop.optimizer': inner_steps.paper(3e-5),
  'model.adaptation.inner_loop.optimizer': inner_steps.paper(1e-5),
};
local rates(rate) = {
  'trainer.optimizer.lr': rate,
  'trainer.optimizer.parameter_groups': [
    [['text_field_embedder'], { lr: rate }],
    [['classifier'], { lr: 10 * rate }],
  ],
};
// alpha / beta = 1 and gamma / beta = 1 / 3 if `inner` is 1.
local adaptation_rate(rate, inner=1) = {
  'model.adaptation.inner_loop.optimizer': inner_steps.published_as_adam(inner * rate / 3),
};
local inner_rates(rate, inner=1) = adaptation_rate(rate, inner) {
  'trainer.meta_gradient.inner_loop.optimizer': inner_steps.published_as_adam(inner * rate),
};

{
  environment: {
    METANER_UPDATES: updates,
    METANER_UPDATES_PER_VALIDATION: updates_per_validation,
    METANER_BATCH_SIZE: tasks,
  },
  rates:: rates,
  adaptation_rate:: adaptation_rate,
  inner_rates:: inner_rates,
  query_only:: query_only,

  // The converged base: a finished one (METANER_BASE), or one that is trained.
  base:: if settings.base == '' then $.trained_base else { run: settings.base, adapt: false, last: 1 },
  trained_base:: {
    config: '../small/base_en.jsonnet',
    environment: { METANER_BATCH_SIZE: sentences_of_base },
    adapt: false,
    last: 1,
  },

  // A way, evaluated as it is after its last update.
  way(config, overrides={}, batch=tasks):: {
    start: 'base',
    config: '../second_stage/%s.jsonnet' % config,
    overrides: overrides,
    environment: { METANER_START_WEIGHTS: 'model_state_e%d_b0.th' % epochs_of_base, METANER_BATCH_SIZE: batch },
    adapt: false,
    last: 1,
  },
  ways:: {
    local way = $.way,
    plain: way('base_en', batch=sentences),
    plain_masked: way('base_masked_en', batch=sentences),
    query_only: way('meta_en', query_only),
    query_only_masked: way('full_en', query_only),
    maml: way('meta_en'),
    maml_masked: way('full_en'),
    maml_adam: way('meta_en', adam),
    maml_adam_masked: way('full_en', adam),
  },

  // A system whose cells adapt where their targets say so.
  as_targets_say(system):: { [key]: system[key] for key in std.objectFields(system) if key != 'adapt' },
  // The same trainings, evaluated in another way.
  adapted(systems):: { [name + '_adapted']: systems[name] { adapt: true } for name in std.objectFields(systems) },
  averaged(systems, last=5):: { [name + '_mean']: systems[name] { last: last } for name in std.objectFields(systems) },
}
