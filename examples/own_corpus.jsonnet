// Train on a corpus of your own. Copy this file, say where the corpus is and what its lines look like, and
//   allennlp train examples/own_corpus.jsonnet -s runs/own --include-package allennlp_metaner
// For the full method, import meta_en instead of base_en, and for the small encoder small/base_en or small/meta_en.
(import '../training_configs/base_en.jsonnet') + {
  source+:: {
    // One word a line: columns count from 0. `label_map` gives types new names, or drops them with 'O'.
    reader: {
      type: 'ner_columns',
      word_column: 0,
      tag_column: 1,
      scheme: 'BIO',
      label_map: { PERSON: 'PER', DATE: 'O' },
    },
    train: 'my/train.tsv',
    dev: 'my/dev.tsv',
  },
}
