"""Weights by neighbours, against a plain loop and the worked example."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from allennlp.models import Archive
from safetensors.torch import load_file

from allennlp_metaner.unlabelled import neighbor_weights as module
from allennlp_metaner.unlabelled.neighbor_weights import neighbor_weights, weights_of_counts
from allennlp_metaner.unlabelled.pseudo_labels import VECTORS, read_manifest, read_pseudo_labels, shard_file
from allennlp_metaner.unlabelled.teacher import Teacher


def test_worked_example() -> None:
    """A mean of 0.8 and a largest c of 1: c = 1, 0.8, 0.5, 0.2 give 1.00, 0.65, 0.18, 0.035."""
    # The other words bring the mean to 0.8.
    shared = np.array([100, 80, 50, 20, *[90] * 6, *[85] * 2])
    assert shared.mean() == 80 and shared.max() == 100
    weights = weights_of_counts(shared, ["B-PER"] * len(shared))
    assert weights[:4] == pytest.approx([1.0, 0.65, 0.18, 0.035], abs=0.005)
    assert weights[3] == pytest.approx(0.035, abs=0.0005)


def test_tags_apart() -> None:
    """Mean and maximum are of the words of the same tag; no shared neighbour at all spoils nothing."""
    weights = weights_of_counts(np.array([4, 2, 400, 200, 0, 0]), ["B-PER"] * 2 + ["O"] * 2 + ["I-LOC"] * 2)
    assert weights[:2].tolist() == weights[2:4].tolist()
    assert weights[0] == 1 and 0 < weights[1] < 1
    assert weights[4:].tolist() == [1, 1]


def plain(vectors: np.ndarray, sentences: list[list[str]], tags: list[str]) -> list[float]:
    words = [(number, word) for number, words in enumerate(sentences) for word in words]
    k = min(500, len(words) // 20)
    counts = []
    for j in range(len(words)):
        others = [i for i in range(len(words)) if words[i] != words[j]]
        others.sort(key=lambda i: (-float(vectors[i].astype(float) @ vectors[j].astype(float)), i))
        counts.append(sum(tags[i].split("-")[-1] == tags[j].split("-")[-1] for i in others[:k]))
    weights = []
    for j, tag in enumerate(tags):
        own = [counts[i] for i in range(len(tags)) if tags[i] == tag]
        c = [count / max(1, *own, 1) for count in own]

        def curve(value: float, mean: float = sum(c) / len(c)) -> float:
            return 1 / (1 + math.exp(-6 * (value - mean)))

        weights.append(curve(counts[j] / max(1, *own, 1)) / max(map(curve, c)))
    return weights


@pytest.mark.parametrize("bound", ["guessed", "too high"])
def test_plain_loop(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Words repeat within sentences and across them; a repeated word is no neighbour of itself. Where too few
    words reach the guessed similarity, the result is the same.
    """
    monkeypatch.setattr(module, "_QUERIES_AT_ONCE", 50)
    monkeypatch.setattr(module, "_OTHERS_AT_ONCE", 30)
    monkeypatch.setattr(module, "_SAMPLE", 60)
    if bound == "too high":
        guessed = module._Words._bounds

        def too_high(self: Any, vectors: torch.Tensor, num_neighbors: int) -> torch.Tensor:
            bounds = guessed(self, vectors, num_neighbors)
            bounds[::3] = 0.999
            return bounds

        monkeypatch.setattr(module._Words, "_bounds", too_high)
    draw = random.Random(5)
    sentences = [[draw.choice("abcdefgh") for _ in range(draw.randint(1, 7))] for _ in range(40)]
    number = sum(map(len, sentences))
    assert number >= 100
    tags = draw.choices(["O", "B-PER", "I-PER", "B-LOC"], k=number)
    vectors = np.random.default_rng(5).normal(size=(number, 6)).astype(np.float32)
    # Types lie together, so that weights differ.
    vectors[:, 0] += [2 * len(tag) for tag in tags]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = neighbor_weights(vectors, sentences, tags)
    assert weights == pytest.approx(plain(vectors, sentences, tags), rel=1e-5)
    assert weights.min() < 0.5 and weights.max() == 1


def test_written(tiny_pseudo_labels: Path, tiny_archive: Archive) -> None:
    """What is in a folder is what its vectors and tags give; and vectors do not depend on the batch."""
    manifest, sentences = read_manifest(tiny_pseudo_labels), list(read_pseudo_labels(tiny_pseudo_labels))
    words = [sentence.words for sentence in sentences]
    tags = [manifest["labels"][index] for sentence in sentences for index in sentence.tags.tolist()]
    teacher = Teacher(tiny_archive, adapt=False)
    vectors = torch.cat([teacher.word_vectors([own])[0] for own in words])
    stored = load_file(shard_file(tiny_pseudo_labels, VECTORS, 0))["vectors"]
    torch.testing.assert_close(stored.float(), vectors, atol=1e-3, rtol=0)
    expected = neighbor_weights(stored.numpy(), words, tags)
    written = torch.cat([sentence.neighbor_weights for sentence in sentences])
    assert np.array_equal(written.numpy(), expected)
    own = [tag == "O" for tag in tags]
    assert manifest["mean_neighbor_weights"]["O"] == pytest.approx(expected[own].mean())
