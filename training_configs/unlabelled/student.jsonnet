// A student of soft labels, from its teacher's weights.
import '../lib/student.libsonnet'
