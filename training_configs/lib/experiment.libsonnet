// What the grids in experiments/ share.
local corpora = import 'corpora.libsonnet';

{
  // The test files of the paper's targets, and how an archive of a source model reads them.
  targets: {
    es: { file: corpora.conll2002_es.test, overrides: import '../targets/es.jsonnet' },
    nl: { file: corpora.conll2002_nl.test, overrides: import '../targets/nl.jsonnet' },
    de: { file: corpora.conll2003_de.test, overrides: import '../targets/de.jsonnet' },
    fr: { file: corpora.europeana_fr.test, overrides: import '../targets/fr.jsonnet' },
    zh: { file: corpora.msra_zh.test, overrides: import '../targets/zh.jsonnet' },
  },

  // What settings may be chosen on: the source's dev data, and two languages that are no targets of the paper.
  development: {
    en: { file: corpora.conll2003_en.dev },
    pt: { file: corpora.uner_pt.dev, overrides: import '../targets/pt.jsonnet' },
    da: { file: corpora.uner_da.dev, overrides: import '../targets/da.jsonnet' },
  },

  // A target for each of the development languages named and each of the settings: a grid's cells are targets of systems,
  // so what a cell sets for itself stands in its target's overrides. "none" is without adaptation.
  settings_as_targets(languages, settings)::
    local all = settings { none: { 'model.adaptation.enabled': false } };
    {
      ['%s_%s' % [language, name]]: $.development[language] { overrides+: all[name] }
      for language in languages
      for name in std.objectFields(all)
    },

  // Tables 3 and 4, and the controls, for targets with the four entity types of the source. `base` and `meta` are
  // overrides of the configs; `few` replaces the seeds of all but base and full.
  systems(base={}, meta={}, few={}):: {
    base: { config: '../base_en.jsonnet', overrides: base, adapt: false },
    // Shares its trainings with `base`.
    base_adapted: self.base { adapt: true } + few,
    full: { config: '../meta_en.jsonnet', overrides: meta, adapt: true },
    // Shares its trainings with `full`: what comes of meta-training alone.
    full_unadapted: self.full { adapt: false } + few,
    no_max_loss: self.full { config: '../ablations/no_max_loss.jsonnet' } + few,
    no_masking: self.full { config: '../ablations/no_masking.jsonnet' } + few,
    no_max_loss_no_masking: self.full { config: '../ablations/no_max_loss_no_masking.jsonnet' } + few,
    random_support: self.full { config: '../controls/random_support.jsonnet' } + few,
  },

  // Base and full for targets without MISC.
  systems_without_misc(base={}, meta={}):: {
    base_no_misc: { config: '../targets/no_misc_base.jsonnet', overrides: base, adapt: false },
    full_no_misc: { config: '../targets/no_misc.jsonnet', overrides: meta, adapt: true },
  },

  // Table 6: base and full, fine-tuned on some per cent of the target's data, and evaluated without adaptation. `starts`
  // are systems whose trainings they start from; `overrides` and `environment` are of the fine-tuning.
  low_resource(starts, targets, percents, overrides={}, environment={}):: {
    systems: { [name]: starts[name] { targets: [] } for name in std.objectFields(starts) } + {
      ['%s_%s_%d' % [start, target, percent]]: {
        config: '../low_resource/percent_%d.jsonnet' % percent,
        overrides: overrides,
        start: start,
        environment: environment { METANER_TARGET: targets[target] },
        targets: [target],
      }
      for start in std.objectFields(starts)
      for target in std.objectFields(targets)
      for percent in percents
    },
    // The archives read their own target as it is.
    targets: { [target]: { file: corpora[targets[target]].test } for target in std.objectFields(targets) },
  },
}
