// What one adaptation step is worth on converged base models that never saw a task, by learning rate, eps (1e-8 makes a
// sign step, 3.16e-5 is that of the published step), K, number of steps, and with random support. The settings are the
// report's targets. Nothing is trained
// if METANER_BASE names the finished runs.
local experiment = import '../lib/experiment.libsonnet';
local second_stage = import '../lib/second_stage_experiment.libsonnet';

// More seeds cost as much again.
local seeds = [13370];
local languages = ['pt', 'da'];

// Rates in millionths.
local setting(rate, eps=3.16e-5, neighbors=2, steps=1, index='exact') = {
  name: '%s%g_%s_k%d_steps%d' % [
    if index == 'exact' then '' else index + '_',
    rate,
    if eps < 1e-7 then 'sign' else 'published',
    neighbors,
    steps,
  ],
  rate: rate * 1e-6,
  eps: eps,
  neighbors: neighbors,
  steps: steps,
  index: index,
};
// One setting changes at a time, around the published step.
local settings = [setting(rate, eps) for rate in [10, 20, 31.6, 50, 100] for eps in [1e-8, 3.16e-5]]
                 + [setting(31.6, neighbors=k) for k in [4, 8, 16]]
                 + [setting(31.6, neighbors=k, steps=3) for k in [2, 8]]
                 + [setting(31.6, neighbors=k, index='random') for k in [2, 8]];

local overrides(s) = {
  'model.adaptation.enabled': true,
  'model.adaptation.inner_loop.optimizer': { type: 'adam', lr: s.rate, eps: s.eps },
  'model.adaptation.inner_loop.num_steps': s.steps,
  'validation_dataset_reader.retriever.num_neighbors': s.neighbors,
  'validation_dataset_reader.retriever.similarity_index': { type: s.index },
};

{
  seeds: seeds,
  systems: { base: second_stage.as_targets_say(second_stage.base) },
  targets: experiment.settings_as_targets(languages, { [s.name]: overrides(s) for s in settings }),
}
