// The corpora: where their files are, and how to read them.
local data = (import 'settings.libsonnet').data;
// Every key is spelled out, so that a target's reader can replace the source's in an archive (targets/).
local columns = {
  type: 'ner_columns', word_column: 0, tag_column: -1, encoding: 'utf-8', separator: null, scheme: 'BIO',
  sentence_end: null, comment_prefix: null,
  entity_types: ['PER', 'ORG', 'LOC', 'MISC'],
};
// Universal NER, version 1: no MISC, comment lines.
local uner(language) = {
  reader: columns { num_columns: 5, word_column: 1, tag_column: 2, separator: '\t', comment_prefix: '#' },
  test_reader: self.reader,
  train: '%s/uner/%s.train.iob2' % [data, language],
  dev: '%s/uner/%s.dev.iob2' % [data, language],
  test: '%s/uner/%s.test.iob2' % [data, language],
};

{
  conll2003_en: {
    reader: columns { num_columns: 4, scheme: 'IOB1' },
    test_reader: self.reader,
    train: data + '/conll2003/eng.train',
    dev: data + '/conll2003/eng.testa',
    test: data + '/conll2003/eng.testb',
  },
  conll2002_es: {
    reader: columns { num_columns: 3 },
    test_reader: self.reader,
    train: data + '/conll2002/esp.train',
    dev: data + '/conll2002/esp.testa',
    test: data + '/conll2002/esp.testb',
  },
  conll2002_nl: {
    reader: columns { num_columns: 3 },
    test_reader: self.reader,
    train: data + '/conll2002/ned.train',
    dev: data + '/conll2002/ned.testa',
    test: data + '/conll2002/ned.testb',
  },
  conll2003_de: {
    reader: columns { num_columns: 5, scheme: 'IOB1', encoding: 'latin-1' },
    test_reader: self.reader,
    train: data + '/conll2003/deu.train',
    dev: data + '/conll2003/deu.testa',
    test: data + '/conll2003/deu.testb',
  },
  // One file without sentence breaks; the paper's split has 9,527 and 2,375 sentences.
  europeana_fr: {
    local part(name) = columns {
      num_columns: 2, scheme: 'IO', sentence_end: '.', label_map: { MISC: 'O' }, split: name, test_size: 2375,
    },
    reader: part('train'),
    test_reader: part('test'),
    train: data + '/europeana/enp_FR.bnf.bio',
    dev: self.train,
    test: self.train,
  },
  msra_zh: {
    reader: columns { num_columns: 2, separator: '\t' },
    test_reader: self.reader,
    train: data + '/msra/train.bio',
    dev: data + '/msra/dev.bio',
    test: data + '/msra/test.bio',
  },
  // The development languages, on which settings may be chosen.
  uner_pt: uner('pt'),
  uner_da: uner('da'),
}
