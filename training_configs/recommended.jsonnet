// What to train, by what was measured (docs/results.md): a student that learns the tags on which three converged English
// models agree on text of the target language, from the weights of one of them, where words count less whose label the
// most similar words do not share. Of all that was tried, students alone are better than their start for every seed, and
// they need no retrieval and no gradient step to label. Make the pseudo labels first, with --neighbor-weights:
// docs/unlabelled.md, or all stages at once: allennlp metaner-student. A second round, with the students as teachers and
// as starts, adds to it. The learning rates are those of the small encoder; unlabelled/voting_knn has those of large ones.
import 'small/voting_knn.jsonnet'
