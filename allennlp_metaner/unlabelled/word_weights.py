"""How much each word of the pseudo labels counts."""

import torch
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.unlabelled.pseudo_labels import PseudoLabelled


class WordWeights(Registrable):
    """
    A weight for each word of a sentence with pseudo labels.

    The default implementation is "none".
    """

    default_implementation = "none"
    needs_neighbors = False
    """Whether the folder of pseudo labels must have been made with `--neighbor-weights`."""

    def __call__(self, sentence: PseudoLabelled) -> torch.Tensor:
        """
        # Parameters

        sentence : `PseudoLabelled`

        # Returns

        `torch.Tensor`
            From 0 to 1, shape `(num_words,)`.
        """
        raise NotImplementedError


@WordWeights.register("none")
class NoWeights(WordWeights):
    """
    Every word counts the same.

    Registered as a `WordWeights` with name "none".
    """

    def __call__(self, sentence: PseudoLabelled) -> torch.Tensor:
        return torch.ones(len(sentence.words))


@WordWeights.register("vote")
class Vote(WordWeights):
    """
    Only words count for which all teachers have the same tag (Wu et al., IJCAI 2020).

    Registered as a `WordWeights` with name "vote".
    """

    def __call__(self, sentence: PseudoLabelled) -> torch.Tensor:
        return sentence.agreement.float()


@WordWeights.register("knn")
class Neighbors(WordWeights):
    """
    Words count less whose label the most similar words do not share (CoLaDa, ACL 2023), see
    [`neighbor_weights`](./neighbor_weights.md). The folder must have been made with `--neighbor-weights`.

    Registered as a `WordWeights` with name "knn".

    # Raises

    `ConfigurationError`, if it was not.
    """

    needs_neighbors = True

    def __call__(self, sentence: PseudoLabelled) -> torch.Tensor:
        if sentence.neighbor_weights is None:
            raise ConfigurationError(
                "word_weights='knn' needs weights that are not in the folder of pseudo labels: run the same "
                "`allennlp metaner-pseudo-label` again with --neighbor-weights, which adds them"
            )
        return sentence.neighbor_weights


@WordWeights.register("vote+knn")
class VoteAndNeighbors(WordWeights):
    """
    The product of "vote" and "knn".

    Registered as a `WordWeights` with name "vote+knn".
    """

    needs_neighbors = True

    def __call__(self, sentence: PseudoLabelled) -> torch.Tensor:
        return Vote()(sentence) * Neighbors()(sentence)
