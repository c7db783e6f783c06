// Voting, with the weights by neighbours, with the small encoder.
(import 'voting.jsonnet') + { word_weights:: 'vote+knn' }
