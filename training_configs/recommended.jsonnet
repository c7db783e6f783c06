// What to train, by what was measured (docs/results.md): a student that learns the tags on which three converged English
// models agree on text of the target language, from the weights of one of them. Of all that was tried, students gain most,
// for every seed, and they need no retrieval and no gradient step to label. Make the pseudo labels first:
// docs/unlabelled.md, or all stages at once: allennlp metaner-student. A second round, with the students as teachers and
// as starts, adds to it. The learning rates are those of the small encoder; unlabelled/voting has those of large ones.
import 'small/voting.jsonnet'
