"""The weights of words."""

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.unlabelled.pseudo_labels import PseudoLabelled
from allennlp_metaner.unlabelled.word_weights import WordWeights

SENTENCE = PseudoLabelled(
    ["Anna", "left", "."], torch.full((3, 2), 0.5), torch.tensor([1, 0, 0]), torch.tensor([False, True, True])
)


def test_none_and_vote() -> None:
    assert WordWeights.by_name("none")()(SENTENCE).tolist() == [1.0, 1.0, 1.0]
    assert WordWeights.by_name("vote")()(SENTENCE).tolist() == [0.0, 1.0, 1.0]


def test_neighbors() -> None:
    weighed = SENTENCE._replace(neighbor_weights=torch.tensor([0.5, 0.25, 1.0]))
    assert WordWeights.by_name("knn")()(weighed).tolist() == [0.5, 0.25, 1.0]
    assert WordWeights.by_name("vote+knn")()(weighed).tolist() == [0.0, 0.25, 1.0]
    for name in ("knn", "vote+knn"):
        with pytest.raises(ConfigurationError, match="again with --neighbor-weights"):
            WordWeights.by_name(name)()(SENTENCE)
