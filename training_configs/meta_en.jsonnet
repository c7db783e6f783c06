// The paper's full method on CoNLL-2003 English: every number that the paper gives.
import 'lib/meta.libsonnet'
