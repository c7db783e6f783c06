"""kNN-NER: tags of the most similar words of the retrieved sentences, without any gradient."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from allennlp.common import FromParams
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors
from allennlp.nn.util import get_text_field_mask

from allennlp_metaner.nn.collate import collate

Encode = Callable[[TextFieldTensors], torch.Tensor]
"""From a text field's tensors to word vectors, shape `(num_sentences, num_words, dim)`."""


class NearestWords(FromParams):
    """
    Mixes what a tagger says of a word with the labels of similar words of its support sentences (Wang et al.,
    2022, arXiv 2203.17103):

        p(y) = (1 - w) p_model(y) + w p_kNN(y),   p_kNN(y) ~ sum of exp(-d / T) over neighbours labelled y

    where d is the Euclidean distance of the vectors that the classifier sees. The paper looks for neighbours
    among all words of the training data; here they are those of the task's support set, so give the retriever
    a large one, such as `num_neighbors` = 64.

    # Parameters

    weight : `float`, optional (default = `0.3`)
        w: 0 is the model alone, 1 the neighbours alone.
    temperature : `float`, optional (default = `1.0`)
        T: the smaller, the more the nearest words count.
    num_words : `int`, optional (default = `None`)
        How many words are a word's neighbours. If `None`, all of its support set.

    # Raises

    `ConfigurationError`, if an argument is out of range.
    """

    def __init__(
        self, weight: float = 0.3, temperature: float = 1.0, num_words: Optional[int] = None
    ) -> None:
        if not 0 <= weight <= 1:
            raise ConfigurationError(f"nearest_words.weight={weight} must be from 0 to 1")
        if temperature <= 0:
            raise ConfigurationError(f"nearest_words.temperature={temperature} must be more than 0")
        if num_words is not None and num_words < 1:
            raise ConfigurationError(
                f"nearest_words.num_words={num_words} must be at least 1, or null for all"
            )
        self._weight = weight
        self._temperature = temperature
        self._num_words = num_words

    def queries(
        self, encode: Encode, num_labels: int, tasks: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """
        The query of each task, with p_kNN of its words.

        # Parameters

        encode : `Encode`
        num_labels : `int`
        tasks : `Sequence[dict[str, Any]]`
            Each with a "query" and a labelled "support" batch, as `TaskField` makes them.

        # Returns

        `list[dict[str, Any]]`
            The queries with an entry `neighbors` of shape `(num_sentences, num_words, num_labels)`, which is
            zero at masked words.
        """
        found = []
        with torch.no_grad():
            for task in tasks:
                query, support = task["query"]["tokens"], task["support"]["tokens"]
                there = get_text_field_mask(support)
                words, labels = encode(support)[there], task["support"]["tags"][there]
                votes = self._votes(encode(query), words, labels, num_labels)
                votes = votes * get_text_field_mask(query).unsqueeze(-1)
                found.append({**task["query"], "neighbors": votes})
        return found

    @staticmethod
    def joined(queries: Sequence[dict[str, Any]]) -> torch.Tensor:
        """
        The entries `neighbors` of several queries, padded to the longest.

        # Raises

        `ConfigurationError`, if there are none.
        """
        if not queries:
            raise ConfigurationError(
                "nearest_words needs the support sets of sentences, but there are none: read sentences by a "
                "'pseudo_tasks' reader, or set model.nearest_words = null"
            )
        return collate([{"neighbors": query["neighbors"]} for query in queries])["neighbors"]

    def mixed(self, logits: torch.Tensor, neighbors: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        logits : `torch.Tensor`
            The model's, shape `(num_sentences, num_words, num_labels)`.
        neighbors : `torch.Tensor`
            p_kNN, of the same shape.

        # Returns

        `torch.Tensor`
            log p(y).
        """
        probabilities = (1 - self._weight) * logits.softmax(dim=-1) + self._weight * neighbors
        # With w = 1, a label that no neighbour has would be minus infinity.
        return probabilities.clamp_min(torch.finfo(logits.dtype).tiny).log()

    def _votes(
        self, queries: torch.Tensor, words: torch.Tensor, labels: torch.Tensor, num_labels: int
    ) -> torch.Tensor:
        # Not by a product of matrices, which is inexact where vectors are alike.
        distances = torch.cdist(queries, words, compute_mode="donot_use_mm_for_euclid_dist")
        if self._num_words is not None and self._num_words < len(words):
            distances, nearest = distances.topk(self._num_words, dim=-1, largest=False)
            labels = labels[nearest]
        else:
            labels = labels.expand_as(distances)
        weights = (-distances / self._temperature).softmax(dim=-1)
        return weights.new_zeros(*weights.shape[:-1], num_labels).scatter_add_(-1, labels, weights)
