// Control: support sets of random sentences in place of the most similar ones, in training and adaptation.
(import '../meta_en.jsonnet') + { retriever+:: { similarity_index: { type: 'random' } } }
