// The paper's base model on CoNLL-2003 English: 7 epochs are 3073 updates of 32 sentences.
import 'lib/base.libsonnet'
