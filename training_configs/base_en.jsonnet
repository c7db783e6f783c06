// The paper's base model on CoNLL-2003 English: as many updates of 32 sentences as meta_en has of 32 tasks.
import 'lib/base.libsonnet'
