// The paper's full method on CoNLL-2003 English: every number is the paper's.
import 'lib/meta.libsonnet'
