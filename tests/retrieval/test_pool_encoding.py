"""Vectors in shards: those of one call, after any interruption, each sentence once."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.retrieval import pool_encoding
from allennlp_metaner.retrieval.pool_encoding import encode_in_shards
from allennlp_metaner.retrieval.retriever import Retriever
from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder, TransformerSentenceEncoder
from tests.conftest import tiny_sentences

SENTENCES = [words for words, _ in tiny_sentences()]
# With duplicates, and not in the order of their lengths.
MANY = [*SENTENCES, *SENTENCES[::3], SENTENCES[0]]
NUM_DISTINCT = len(set(map(tuple, MANY)))


class Counted(SentenceEncoder):
    """Remembers what it encodes, and is interrupted at a call."""

    def __init__(self, encoder: SentenceEncoder, interrupted_at: int = -1) -> None:
        self._encoder = encoder
        self.interrupted_at = interrupted_at
        self.calls: list[int] = []

    def encode(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        if len(self.calls) == self.interrupted_at:
            raise KeyboardInterrupt
        self.calls.append(len(sentences))
        return self._encoder.encode(sentences)

    def fingerprint(self) -> str:
        return self._encoder.fingerprint()


@pytest.fixture
def encoder(tiny_encoder: str) -> TransformerSentenceEncoder:
    return TransformerSentenceEncoder(tiny_encoder)


def test_the_vectors_of_one_call(tmp_path: Path, encoder: SentenceEncoder) -> None:
    expected = encoder.encode(MANY)
    counted = Counted(encoder)
    vectors = encode_in_shards(counted, MANY, tmp_path / "shards", "key", sentences_per_shard=30)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert sum(counted.calls) == NUM_DISTINCT and max(counted.calls) == 30
    # Equal sentences have equal vectors, bit by bit.
    first: dict[tuple[str, ...], np.ndarray] = {}
    for words, vector in zip(MANY, vectors, strict=True):
        np.testing.assert_array_equal(first.setdefault(tuple(words), vector), vector)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_call_goes_on(tmp_path: Path, encoder: SentenceEncoder) -> None:
    expected = encode_in_shards(encoder, MANY, tmp_path / "whole", "key", sentences_per_shard=20)
    with pytest.raises(KeyboardInterrupt):
        encode_in_shards(Counted(encoder, 2), MANY, tmp_path / "parts", "key", sentences_per_shard=20)
    with pytest.raises(ConfigurationError, match="another job: key"):
        encode_in_shards(encoder, MANY, tmp_path / "parts", "other", sentences_per_shard=20)
    rest = Counted(encoder)
    found = encode_in_shards(rest, MANY, tmp_path / "parts", "key", sentences_per_shard=20)
    assert sum(rest.calls) == NUM_DISTINCT - 40
    np.testing.assert_array_equal(found, expected)


def test_few_sentences_and_unwritable_folders(tmp_path: Path, encoder: SentenceEncoder) -> None:
    counted = Counted(encoder)
    found = encode_in_shards(counted, MANY, tmp_path / "shards", "key")
    np.testing.assert_array_equal(found, encoder.encode(MANY))
    (tmp_path / "file").write_text("in the way")
    blocked = encode_in_shards(counted, MANY, tmp_path / "file/shards", "key", sentences_per_shard=20)
    np.testing.assert_array_equal(blocked, found)
    assert counted.calls == [len(MANY)] * 2


def test_the_cache_is_filled_by_shards(
    tmp_path: Path, encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = encode_in_shards, list[Any]()

    def small_shards(*arguments: Any) -> np.ndarray:
        calls.append(arguments[-1])
        return real(*arguments, sentences_per_shard=25)

    monkeypatch.setattr("allennlp_metaner.retrieval.retriever.encode_in_shards", small_shards)
    with pytest.raises(KeyboardInterrupt):
        Retriever(Counted(encoder, 1), cache_directory=str(tmp_path)).vectors(MANY)
    assert [path.name for path in tmp_path.glob("*.shards/*.npy")] == ["000000.npy"]
    counted = Counted(encoder)
    vectors = Retriever(counted, cache_directory=str(tmp_path)).vectors(MANY)
    assert sum(counted.calls) == NUM_DISTINCT - 25
    assert not list(tmp_path.glob("*.shards"))
    np.testing.assert_allclose(vectors, encoder.encode(MANY), atol=1e-6)
    np.testing.assert_array_equal(Retriever(counted, cache_directory=str(tmp_path)).vectors(MANY), vectors)
    assert calls == [None, None] and len(counted.calls) == 2
    with pytest.raises(ConfigurationError, match="num_workers=0 must be positive"):
        Retriever(encoder, num_workers=0)


def test_workers_get_the_same_encoder(encoder: SentenceEncoder) -> None:
    """Pickled before and after it is loaded."""
    copies = [pickle.loads(pickle.dumps(encoder))]
    expected = encoder.encode(SENTENCES)
    copies.append(pickle.loads(pickle.dumps(encoder)))
    for copy in copies:
        content = pool_encoding._load(copy)(list(map(tuple, SENTENCES)))
        np.testing.assert_array_equal(np.load(io.BytesIO(content)), expected)
