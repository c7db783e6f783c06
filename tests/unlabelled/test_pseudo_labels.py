"""Folders of pseudo labels: what is in them, and what guards say of them."""

import json
from pathlib import Path

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.unlabelled.pseudo_labels import (
    MANIFEST,
    read_manifest,
    read_pseudo_labels,
    shifted_types,
    type_shares,
    unique,
)
from allennlp_metaner.unlabelled.teacher import well_formed


def test_unique() -> None:
    assert unique([["a", "b"], ["c"], ["a", "b"], ["a b"]]) == [["a", "b"], ["c"], ["a b"]]


def test_type_shares() -> None:
    tags = [["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "B-PER", "O", "O"]]
    assert type_shares(tags) == {"LOC": 1 / 8, "PER": 3 / 8}
    assert type_shares([]) == {}


def test_shifted_types() -> None:
    found, source = {"PER": 0.02, "LOC": 0.05, "ORG": 0.01}, {"PER": 0.04, "LOC": 0.02, "MISC": 0.1}
    assert shifted_types(found, source) == {"LOC": (0.05, 0.02), "MISC": (0.0, 0.1), "ORG": (0.01, 0.0)}


def test_well_formed() -> None:
    """An I- tag follows its own type alone, even where another is more probable."""
    labels = ["O", "B-PER", "I-PER", "I-LOC"]
    rows = torch.tensor([[0.1, 0.5, 0.3, 0.1], [0.1, 0.1, 0.3, 0.5], [0.2, 0.1, 0.6, 0.1]])
    assert well_formed(rows, [2, 1], labels).tolist() == [1, 2, 0]


def test_read(tiny_pseudo_labels: Path) -> None:
    manifest = read_manifest(tiny_pseudo_labels)
    sentences = list(read_pseudo_labels(tiny_pseudo_labels))
    assert len(sentences) == manifest["num_sentences"] == len({tuple(s.words) for s in sentences})
    assert sum(len(s.words) for s in sentences) == manifest["num_words"]
    for sentence in sentences:
        assert sentence.probabilities.shape == (len(sentence.words), len(manifest["labels"]))
        torch.testing.assert_close(
            sentence.probabilities.sum(dim=1), torch.ones(len(sentence.words)), atol=2e-3, rtol=0
        )
        assert sentence.agreement.all()


def test_incomplete(tiny_pseudo_labels: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"has no {MANIFEST}.*metaner-pseudo-label"):
        read_manifest(tmp_path)
    manifest = {**read_manifest(tiny_pseudo_labels), "num_shards": 1}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    (tmp_path / "words.jsonl").write_text('["too", "few"]\n', "utf-8")
    (tmp_path / "together").symlink_to(tiny_pseudo_labels / "together")
    with pytest.raises(ConfigurationError, match=r"words\.jsonl has 2 in its place"):
        list(read_pseudo_labels(tmp_path))
