from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from allennlp_metaner.retrieval.similarity_index import ExactIndex, RandomIndex, SimilarityIndex


def normalized(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(
    pool: np.ndarray, queries: np.ndarray, k: int, exclude: Sequence[Sequence[int]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All products in float64, stably sorted."""
    scores = (queries.astype(np.float64)[:, None] * pool.astype(np.float64)[None]).sum(-1)
    for row, positions in enumerate(exclude or ()):
        scores[row, list(positions)] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1).astype(np.float32)


def assert_exact(index: SimilarityIndex, *arguments: object) -> None:
    indices, similarities = index.search(*arguments)  # type: ignore[arg-type]
    expected_indices, expected_similarities = brute_force(*arguments)  # type: ignore[arg-type]
    assert (indices.dtype, similarities.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(similarities, expected_similarities)


few_directions = st.lists(st.sampled_from([-1, 0, 1]), min_size=4, max_size=4).filter(any)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_exact_equals_brute_force_with_many_ties(data: st.DataObject) -> None:
    pool = normalized(np.array(data.draw(st.lists(few_directions, min_size=1, max_size=50))))
    queries = normalized(np.array(data.draw(st.lists(few_directions, min_size=1, max_size=12))))
    k = data.draw(st.integers(1, min(5, len(pool))))
    excluded = st.lists(st.integers(0, len(pool) - 1), max_size=len(pool) - k)
    exclude = data.draw(
        st.none() | st.lists(excluded, min_size=len(queries), max_size=len(queries)), label="exclude"
    )
    blocks = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 60)), label="blocks")
    assert_exact(ExactIndex(*blocks), pool, queries, k, exclude)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("blocks", [(512, 8192), (7, 30), (64, 301)])
def test_exact_decides_what_float32_products_cannot(k: int, blocks: tuple[int, int]) -> None:
    # Groups of 20 vectors that differ by some units in the last place: more than the margin of candidates.
    rng = np.random.default_rng(k)
    pool = np.repeat(normalized(rng.standard_normal((15, 48))), 20, axis=0)
    pool *= 1 + rng.integers(-2, 3, pool.shape).astype(np.float32) * np.float32(2**-23)
    pool[rng.permutation(300)[:60]] = pool[rng.permutation(300)[:60]]
    exclude = [[i, (i * 7) % 300] for i in range(300)]
    assert_exact(ExactIndex(*blocks), pool, pool, k, exclude)


@pytest.mark.parametrize("blocks", [(512, 8192), (16, 64)])
def test_all_vectors_equal(blocks: tuple[int, int]) -> None:
    pool = np.repeat(normalized(np.arange(1, 9).reshape(1, 8)), 200, axis=0)
    indices, _ = ExactIndex(*blocks).search(pool, pool, 2, [[i] for i in range(200)])
    np.testing.assert_array_equal(indices[:4], [[1, 2], [0, 2], [0, 1], [0, 1]])


def test_reduced_precision_of_the_caller_does_not_matter() -> None:
    # Similarities near zero: there bfloat16 inputs err by more than the results are rounded.
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((1000, 32))
    queries = normalized(rng.standard_normal((4, 32)))
    basis = np.linalg.qr(queries.T)[0]
    pool = normalized(pool - 0.98 * pool @ basis @ basis.T)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_exact(ExactIndex(), pool, queries, 5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)


def test_pool_may_be_a_read_only_memory_map(tmp_path: Path) -> None:
    pool = normalized(np.random.default_rng(0).standard_normal((90, 8)))
    np.save(tmp_path / "pool.npy", pool)
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    assert_exact(ExactIndex(16, 16), mapped, mapped[:40], 3)


@pytest.mark.parametrize("distinct", [1, 400])
def test_memory_is_bounded_by_the_blocks(distinct: int) -> None:
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                self.numel = max(self.numel, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return result

    vectors = normalized(np.random.default_rng(0).standard_normal((distinct, 4)))
    pool = np.tile(vectors, (400 // distinct, 1))
    with Largest() as largest:
        ExactIndex(20, 50).search(pool, pool, 2)
    assert 0 < largest.numel <= 2 * 20 * 50


@pytest.mark.parametrize("index", [ExactIndex(), RandomIndex()])
def test_too_few_to_choose_from(index: SimilarityIndex) -> None:
    pool = normalized(np.eye(4))
    assert index.search(pool, pool[:2], 2, [[0, 1], [1, 1, 3]])[0].shape == (2, 2)
    with pytest.raises(ConfigurationError, match=r"k=3 .* 4 sentences, .* 2 are excluded"):
        index.search(pool, pool[:2], 3, [[0], [1, 1, 3]])
    with pytest.raises(ConfigurationError, match="k=5"):
        index.search(pool, pool, 5)
    with pytest.raises(ConfigurationError, match="k=0"):
        index.search(pool, pool, 0)
    with pytest.raises(ConfigurationError, match="outside the pool"):
        index.search(pool, pool[:1], 1, [[4]])
    with pytest.raises(ConfigurationError, match="1 entries for 2 queries"):
        index.search(pool, pool[:2], 1, [[0]])
    assert index.search(pool, pool[:0], 2)[0].shape == (0, 2)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_random_draws_distinct_allowed_rows(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    pool = normalized(np.random.default_rng(size).standard_normal((size, 3)))
    k = data.draw(st.integers(1, size))
    excluded = st.lists(st.integers(0, size - 1), max_size=size - k)
    exclude = data.draw(st.lists(excluded, min_size=3, max_size=3))
    queries = normalized(np.random.default_rng(0).standard_normal((3, 3)))

    indices, similarities = RandomIndex(seed=data.draw(st.integers(0, 5))).search(pool, queries, k, exclude)

    for query, row, values, forbidden in zip(queries, indices, similarities, exclude, strict=True):
        assert len(set(row)) == k
        assert not set(row) & set(forbidden)
        np.testing.assert_allclose(values, pool[row] @ query, atol=1e-6)
        assert (np.diff(values) <= 0).all()


def test_random_depends_on_seed_and_query_only() -> None:
    pool = normalized(np.random.default_rng(0).standard_normal((50, 8)))
    first = RandomIndex().search(pool, pool, 2)[0]

    np.testing.assert_array_equal(first, RandomIndex(seed=13).search(pool, pool, 2)[0])
    np.testing.assert_array_equal(first[30:], RandomIndex().search(pool, pool[30:], 2)[0])
    assert (first != RandomIndex(seed=14).search(pool, pool, 2)[0]).any()
    # Every row of the pool can be drawn, and no query's draw is that of all the others.
    assert len(np.unique(first)) > 35


def test_registered_names() -> None:
    assert isinstance(SimilarityIndex.from_params(Params({})), ExactIndex)
    assert isinstance(SimilarityIndex.from_params(Params({"type": "random", "seed": 1})), RandomIndex)
    with pytest.raises(ConfigurationError, match="query_block=0"):
        ExactIndex(query_block=0)
