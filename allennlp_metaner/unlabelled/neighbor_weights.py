"""Weights of pseudo-labelled words by the labels of the most similar words (CoLaDa, ACL 2023)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from allennlp.common import Tqdm
from safetensors.torch import load_file

from allennlp_metaner.atomic import write_whole
from allennlp_metaner.data.tag_schemes import entity_type
from allennlp_metaner.nn.linear import full_precision, linear
from allennlp_metaner.unlabelled.pseudo_labels import NEIGHBORS, TOGETHER, VECTORS, serialized, shard_file
from allennlp_metaner.unlabelled.teacher import Teacher, shards

MOST_NEIGHBORS = 500
# Of so many words, one is a neighbour, unless that were more than `MOST_NEIGHBORS`.
_WORDS_PER_NEIGHBOR = 20
_STEEPNESS = 6.0
# The similarities of so many words to so many others are in memory at a time: 16 MiB.
_QUERIES_AT_ONCE, _OTHERS_AT_ONCE = 512, 8192
# So many words are enough to guess how similar a word's K-th neighbour is.
_SAMPLE = 16384


def neighbor_weights(
    vectors: np.ndarray, sentences: Sequence[Sequence[str]], tags: Sequence[str]
) -> np.ndarray:
    """
    How far the words that are most similar to a word have labels of the same type: near 1 for a label that
    its neighbours share, near 0 for one that stands alone and is probably wrong.

    The `K = min(500, num_words / 20)` nearest words are looked for among all words of the text, without
    those of equal text in the same sentence. Of them, the share with the word's own type, relative to the
    highest share of any word with its tag, is its consistency `c`. The weight is
    `sigmoid(6 (c - mean of c))`, divided by the highest one; mean and maximum are of the words with the
    same tag. Every word is compared with every other, in float32, and memory does not grow with the number
    of pairs.

    # Parameters

    vectors : `np.ndarray`
        A vector of each word, L2-normalised, float16 or float32, shape `(num_words, dim)`.
    sentences : `Sequence[Sequence[str]]`
        The words, in the order of the vectors.
    tags : `Sequence[str]`
        The BIO tag of each word, in the same order.

    # Returns

    `np.ndarray`
        float32, above 0 and at most 1, shape `(num_words,)`.
    """
    num_neighbors = max(1, min(MOST_NEIGHBORS, len(vectors) // _WORDS_PER_NEIGHBOR))
    # The type of a word that is in no entity is `None`, one like the others.
    types = np.unique([entity_type(tag) or "" for tag in tags], return_inverse=True)[1]
    words = _Words(vectors, types, *_equal_in_sentence(sentences))
    shared = np.empty(len(vectors), dtype=np.int64)
    with torch.inference_mode(), full_precision():
        for start in Tqdm.tqdm(range(0, len(vectors), _QUERIES_AT_ONCE), desc="neighbours"):
            queries = np.arange(start, min(start + _QUERIES_AT_ONCE, len(vectors)))
            shared[queries] = words.sharing(queries, num_neighbors)
    return weights_of_counts(shared, tags)


class _Words:
    """
    Words of which the nearest ones are counted.

    # Parameters

    vectors : `np.ndarray`
        Shape `(num_words, dim)`.
    types : `np.ndarray`
        The type of each word as a number, shape `(num_words,)`.
    rows, columns : `np.ndarray`
        Pairs of words that are no neighbours of each other, sorted by `rows`.
    """

    def __init__(self, vectors: np.ndarray, types: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
        self._vectors = vectors
        self._types = types
        self._rows, self._columns = rows, columns
        self._sample = torch.tensor(vectors[:: -(-len(vectors) // _SAMPLE)], dtype=torch.float32)

    def sharing(self, queries: np.ndarray, num_neighbors: int) -> np.ndarray:
        """How many of the nearest words have the type of each query, shape `(num_queries,)`."""
        vectors = torch.tensor(self._vectors[queries], dtype=torch.float32)
        rows, same = self._sorted_pairs(vectors, queries, self._bounds(vectors, num_neighbors))
        found = np.bincount(rows, minlength=len(queries))
        # Where the guess was too high, all words have to be sorted.
        few = np.flatnonzero(found < num_neighbors)
        if len(few):
            keep = found[rows] >= num_neighbors
            no_bounds = torch.full((len(few),), -torch.inf)
            more_rows, more_same = self._sorted_pairs(vectors[few], queries[few], no_bounds)
            rows, same = np.append(rows[keep], few[more_rows]), np.append(same[keep], more_same)
            order = np.argsort(rows, kind="stable")
            rows, same = rows[order], same[order]
        starts = np.searchsorted(rows, np.arange(len(queries)))
        nearest = np.arange(len(rows)) - starts[rows] < num_neighbors
        return np.bincount(rows[nearest & same], minlength=len(queries))

    def _bounds(self, vectors: torch.Tensor, num_neighbors: int) -> torch.Tensor:
        """
        Similarities that hardly more than `num_neighbors` words reach, and almost never fewer, shape
        `(num_queries,)`: the number of them in a sample is at most four standard deviations too low.
        """
        expected = num_neighbors * len(self._sample) / len(self._vectors)
        rank = min(len(self._sample), int(expected + 4 * expected**0.5) + 8)
        return linear(vectors, self._sample).topk(rank).values[:, -1]

    def _sorted_pairs(
        self, vectors: torch.Tensor, queries: np.ndarray, bounds: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        All pairs of a query and a word as similar as its bound, query by query, the most similar word first:
        the position of the query, and whether the word has its type.
        """
        rows, others, scores = (
            np.concatenate(part) for part in zip(*self._pairs(vectors, queries, bounds), strict=True)
        )
        order = np.lexsort((others, -scores, rows))
        return rows[order], (self._types[others] == self._types[queries[rows]])[order]

    def _pairs(
        self, vectors: torch.Tensor, queries: np.ndarray, bounds: torch.Tensor
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        first, last = (np.searchsorted(self._rows, queries, side) for side in ("left", "right"))
        counts = last - first
        excluded = np.repeat(np.arange(len(queries)), counts)
        columns = self._columns[
            np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        ]
        for start in range(0, len(self._vectors), _OTHERS_AT_ONCE):
            block = torch.tensor(self._vectors[start : start + _OTHERS_AT_ONCE], dtype=torch.float32)
            scores = linear(vectors, block)
            inside = (columns >= start) & (columns < start + len(block))
            scores[excluded[inside], columns[inside] - start] = -torch.inf
            rows, others = torch.nonzero((scores >= bounds[:, None]) & (scores > -torch.inf), as_tuple=True)
            yield rows.numpy(), others.numpy() + start, scores[rows, others].numpy()


def write_vectors(folder: Path, teacher: Teacher, sentences: Sequence[Sequence[str]]) -> None:
    """Write the vectors of all words, but for the shards that are there already."""
    (folder / VECTORS).mkdir(exist_ok=True)
    for shard, of_shard in Tqdm.tqdm(shards(sentences), desc=VECTORS):
        path = shard_file(folder, VECTORS, shard)
        if not path.exists():
            write_whole(path, serialized({"vectors": torch.cat(teacher.word_vectors(of_shard)).half()}))


def write_neighbor_weights(
    folder: Path, sentences: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, float]:
    """
    Write [`neighbor_weights`](#neighbor_weights) by the vectors and the tags of all teachers in `folder`.

    # Returns

    `dict[str, float]`
        The mean weight of each type's words.
    """
    (folder / NEIGHBORS).mkdir(exist_ok=True)
    vectors: list[np.ndarray] = []
    tags: list[str] = []
    for shard, _ in shards(sentences):
        vectors.append(load_file(shard_file(folder, VECTORS, shard))["vectors"].numpy())
        tags += [labels[index] for index in load_file(shard_file(folder, TOGETHER, shard))["tags"].tolist()]
    weights = neighbor_weights(np.concatenate(vectors), sentences, tags)
    start = 0
    for shard, of_shard in shards(sentences):
        end = start + sum(map(len, of_shard))
        content = {"weights": torch.from_numpy(weights[start:end])}
        write_whole(shard_file(folder, NEIGHBORS, shard), serialized(content))
        start = end
    types = np.asarray([entity_type(tag) or "O" for tag in tags])
    return {str(type_): float(weights[types == type_].mean()) for type_ in np.unique(types)}


def weights_of_counts(shared: np.ndarray, tags: Sequence[str]) -> np.ndarray:
    """
    The weights by the number of each word's neighbours that share its type, shape `(num_words,)`, see
    [`neighbor_weights`](#neighbor_weights).
    """
    weights = np.empty(len(shared))
    names = np.asarray(tags)
    for tag in np.unique(names):
        own = names == tag
        # Where no word of this tag has a neighbour of its type, none is worse than another.
        consistency = shared[own] / max(1, shared[own].max())
        curve = 1 / (1 + np.exp(-_STEEPNESS * (consistency - consistency.mean())))
        weights[own] = curve / curve.max()
    return weights.astype(np.float32)


def _equal_in_sentence(sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of words of a sentence with equal text, each with itself too: positions in the whole text."""
    rows: list[int] = []
    columns: list[int] = []
    start = 0
    for words in sentences:
        positions = defaultdict(list)
        for position, word in enumerate(words, start):
            positions[word].append(position)
        for position, word in enumerate(words, start):
            columns += positions[word]
            rows += [position] * len(positions[word])
        start += len(words)
    return np.asarray(rows), np.asarray(columns)
