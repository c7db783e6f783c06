"""Weights of pseudo-labelled words by the labels of the most similar words (CoLaDa, ACL 2023)."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from allennlp.common import Tqdm
from safetensors.torch import load_file

from allennlp_metaner.atomic import write_whole
from allennlp_metaner.data.coding import entity_type
from allennlp_metaner.retrieval.similarity_index import ExactIndex, SimilarityIndex
from allennlp_metaner.unlabelled.labelling import Teacher, shards
from allennlp_metaner.unlabelled.pseudo_labels import NEIGHBORS, TOGETHER, VECTORS, serialized, shard_file

MOST_NEIGHBORS = 500
# Of so many words, one is a neighbour, unless that were more than `MOST_NEIGHBORS`.
_WORDS_PER_NEIGHBOR = 20
_STEEPNESS = 6.0
# Positions and similarities of the neighbours of so many words are in memory at a time: about 25 MB.
_QUERIES_AT_ONCE = 4096


def neighbor_weights(
    vectors: np.ndarray,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[str],
    index: Optional[SimilarityIndex] = None,
) -> np.ndarray:
    """
    How far the words that are most similar to a word have labels of the same type: near 1 for a label that
    its neighbours share, near 0 for one that stands alone and is probably wrong.

    The `K = min(500, num_words / 20)` nearest words are looked for among all words of the text, without
    those of equal text in the same sentence. Of them, the share with the word's own type, relative to the
    highest share of any word with its tag, is its consistency `c`. The weight is
    `sigmoid(6 (c - mean of c))`, divided by the highest one; mean and maximum are of the words with the
    same tag.

    # Parameters

    vectors : `np.ndarray`
        A vector of each word, L2-normalised, float16 or float32, shape `(num_words, dim)`.
    sentences : `Sequence[Sequence[str]]`
        The words, in the order of the vectors.
    tags : `Sequence[str]`
        The BIO tag of each word, in the same order.
    index : `SimilarityIndex`, optional (default = `ExactIndex()`)
        Its memory does not grow with the number of words.

    # Returns

    `np.ndarray`
        float32, above 0 and at most 1, shape `(num_words,)`.
    """
    num_neighbors = max(1, min(MOST_NEIGHBORS, len(vectors) // _WORDS_PER_NEIGHBOR))
    index = index or ExactIndex()
    excluded = _equal_in_sentence(sentences)
    # The type of a word that is in no entity is `None`, one like the others.
    types = np.unique([entity_type(tag) or "" for tag in tags], return_inverse=True)[1]
    shared = np.empty(len(vectors), dtype=np.int64)
    for start in Tqdm.tqdm(range(0, len(vectors), _QUERIES_AT_ONCE), desc="neighbours"):
        part = slice(start, start + _QUERIES_AT_ONCE)
        found, _ = index.search(vectors, vectors[part], num_neighbors, excluded[part])
        shared[part] = (types[found] == types[part, None]).sum(axis=1)
    return weights_of_counts(shared, tags)


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


def _equal_in_sentence(sentences: Sequence[Sequence[str]]) -> list[list[int]]:
    """For every word of the text, the positions of the words of its sentence with equal text, its own too."""
    excluded: list[list[int]] = []
    for words in sentences:
        positions = defaultdict(list)
        for position, word in enumerate(words, start=len(excluded)):
            positions[word].append(position)
        excluded.extend(positions[word] for word in words)
    return excluded
