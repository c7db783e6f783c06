// Voting, with the weights by neighbours.
(import 'voting.jsonnet') + { word_weights:: 'vote+knn' }
