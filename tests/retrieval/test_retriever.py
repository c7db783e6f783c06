from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.retrieval.retriever import Neighbor, Retriever
from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder
from allennlp_metaner.retrieval.similarity_index import ExactIndex, RandomIndex
from allennlp_metaner.retrieval.support_pool import SupportPool

# Angles in degrees: a sentence's vector is the direction that its first word names.
ANGLES = ["0", "0", "10", "25", "180"]


class AngleEncoder(SentenceEncoder):
    def __init__(self, fingerprint: str = "angles") -> None:
        self.calls = 0
        self._fingerprint = fingerprint

    def encode(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        self.calls += 1
        angles = np.radians([float(words[0]) for words in sentences])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def fingerprint(self) -> str:
        return self._fingerprint


def make_pool(angles: Sequence[str] = ANGLES) -> SupportPool:
    sentences = [[angle] for angle in angles]
    return SupportPool(sentences, [["O"]] * len(angles), AngleEncoder().encode(sentences), "angles")


def positions(neighbors: list[list[Neighbor]]) -> list[list[int]]:
    return [[neighbor.index for neighbor in row] for row in neighbors]


def test_nearest_without_identity() -> None:
    neighbors = Retriever(AngleEncoder(), use_cache=False).nearest(make_pool(), [["0"], ["170"]])
    assert positions(neighbors) == [[0, 1], [4, 3]]
    assert neighbors[0][1] == Neighbor(1, 1.0)
    assert neighbors[1][0].similarity == pytest.approx(np.cos(np.radians(10)))
    assert type(neighbors[0][0].index) is int


def test_identity_is_excluded_but_its_duplicate_is_not() -> None:
    pool = make_pool()
    neighbors = Retriever(AngleEncoder(), use_cache=False).nearest(
        pool, [["0"], ["0"], ["10"], ["25"]], identity=[0, None, 2, 3]
    )
    assert positions(neighbors) == [[1, 2], [0, 1], [0, 1], [2, 0]]


def test_equal_texts_are_excluded() -> None:
    retriever = Retriever(AngleEncoder(), num_neighbors=1, exclude_equal_texts=True, use_cache=False)
    pool = make_pool()
    # "0.0" has the same vector as "0", but not the same words.
    neighbors = retriever.nearest(pool, [["0"], ["0"], ["0.0"], ["25"]], identity=[0, None, None, 3])
    assert positions(neighbors) == [[2], [2], [0], [2]]


def test_skip_most_similar_takes_the_next_ranks_whatever_the_identity() -> None:
    retriever = Retriever(AngleEncoder(), skip_most_similar=True, use_cache=False)
    neighbors = retriever.nearest(make_pool(), [["0"], ["170"], ["25"]], identity=[1, None, 3])
    # Rank 1 of the first query is its duplicate, so the query itself stays in, as in the published code.
    assert positions(neighbors) == [[1, 2], [3, 2], [2, 0]]
    plain = Retriever(AngleEncoder(), num_neighbors=3, use_cache=False)
    everything = plain.nearest(make_pool(), [["0"], ["170"], ["25"]])
    assert neighbors == [row[1:] for row in everything]


def test_known_vectors_are_not_encoded_again() -> None:
    encoder = AngleEncoder()
    pool = make_pool()
    found = Retriever(encoder, use_cache=False).nearest(
        pool, pool.sentences, identity=range(5), query_vectors=pool.vectors
    )
    assert positions(found) == [[1, 2], [0, 2], [0, 1], [2, 0], [3, 2]]
    assert encoder.calls == 0


def test_pool_of_another_encoder_is_refused() -> None:
    retriever = Retriever(AngleEncoder("another"), use_cache=False)
    with pytest.raises(ConfigurationError, match="another encoder"):
        retriever.nearest(make_pool(), [["0"]])


def test_pool_too_small() -> None:
    retriever = Retriever(AngleEncoder(), num_neighbors=2, use_cache=False)
    with pytest.raises(ConfigurationError, match=r"k=2 .* 2 sentences"):
        retriever.nearest(make_pool(["0", "1"]), [["0"]], identity=[0])


def test_many_sentences_are_cached_and_few_are_not(tmp_path: Path) -> None:
    many = [[str(angle)] for angle in range(64)]
    first, second = AngleEncoder(), AngleEncoder()
    cold = Retriever(first, cache_directory=str(tmp_path)).vectors(many)
    warm = Retriever(second, cache_directory=str(tmp_path)).vectors(many)
    np.testing.assert_array_equal(cold, warm)
    assert (first.calls, second.calls) == (1, 0)

    changed = AngleEncoder("another")
    Retriever(changed, cache_directory=str(tmp_path)).vectors(many)
    Retriever(second, cache_directory=str(tmp_path)).vectors([*many[:-1], ["0"]])
    assert (changed.calls, second.calls) == (1, 1)

    before = sorted(tmp_path.iterdir())
    Retriever(second, cache_directory=str(tmp_path)).vectors(many[:63])
    Retriever(second, cache_directory=str(tmp_path), use_cache=False).vectors(many)
    assert second.calls == 3
    assert sorted(tmp_path.iterdir()) == before


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="num_neighbors=0"):
        Retriever(AngleEncoder(), num_neighbors=0)
    with pytest.raises(ConfigurationError, match="exclude_equal_texts and skip_most_similar"):
        Retriever(AngleEncoder(), exclude_equal_texts=True, skip_most_similar=True)


def test_from_params(tiny_encoder: str, tmp_path: Path) -> None:
    params = Params(
        {"sentence_encoder": {"model_name": tiny_encoder}, "cache_directory": str(tmp_path / "cache")}
    )
    retriever = Retriever.from_params(params.duplicate(), serialization_dir=str(tmp_path / "run"))
    assert isinstance(retriever.similarity_index, ExactIndex)
    assert retriever.num_neighbors == 2
    # The encoder received the serialization directory, and made the copy that an archive takes along.
    assert list((tmp_path / "run" / "encoder").iterdir())
    pool_sentences = [["rain"], ["berlin"], ["maria", "won"]]
    pool = SupportPool(
        pool_sentences, [["O"], ["O"], ["O", "O"]], retriever.vectors(pool_sentences), retriever.fingerprint()
    )
    assert retriever.nearest(pool, [["rain"]])[0][0].index == 0
    params["similarity_index"] = "random"
    control = Retriever.from_params(params)
    assert isinstance(control.similarity_index, RandomIndex)
    assert {neighbor.index for neighbor in control.nearest(pool, [["rain"]], identity=[0])[0]} == {1, 2}
