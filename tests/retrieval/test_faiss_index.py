"""The approximate index against the exact one; that it is kept, and built again when vectors change."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.retrieval import faiss_index
from allennlp_metaner.retrieval.faiss_index import FaissIndex
from allennlp_metaner.retrieval.similarity_index import ExactIndex, SimilarityIndex
from tests.processes import RunningProcess

FACTORIES = [
    (None, None),
    ("HNSW16", None),
    ("IVF32,Flat", "nprobe=8"),
    ("PCA16,IVF32,SQ8", "nprobe=16"),
    ("Flat", None),
]


def clustered(size: int, seed: int, dim: int = 32) -> np.ndarray:
    """Vectors around 40 centres, the same for every seed, as sentences crowd around topics."""
    centres = np.random.default_rng(0).standard_normal((40, dim))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 40, size)] + 0.6 * rng.standard_normal((size, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]))


@pytest.mark.parametrize("factory, parameters", FACTORIES)
def test_recall_against_exact(tmp_path: Path, factory: str | None, parameters: str | None) -> None:
    pool, queries = clustered(3000, 1), clustered(100, 2)
    index = FaissIndex(factory, parameters, num_candidates=64, cache_directory=str(tmp_path))
    indices, similarities = index.search(pool, queries, 2)
    exact, _ = ExactIndex().search(pool, queries, 2)
    assert (indices.dtype, similarities.dtype) == (np.int64, np.float32)
    assert recall(indices, exact) >= 0.95
    # Similarities are exact, also those of compressed vectors, and sorted.
    np.testing.assert_allclose(similarities, np.take_along_axis(queries @ pool.T, indices, 1), atol=1e-6)
    assert (np.diff(similarities) <= 0).all()
    assert index.index_of(pool).recall >= 0.95


def test_recall_is_measured_not_assumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool = clustered(3000, 1)
    with caplog.at_level(logging.INFO):
        blind = FaissIndex("IVF64,Flat", "nprobe=1", cache_directory=str(tmp_path))
        built = blind.index_of(pool, k=5)
    # By the definition: rows of the pool, themselves excluded.
    positions = np.unique(np.linspace(0, 2999, 200).astype(int))
    exclude = [[position] for position in positions.tolist()]
    found, _ = blind.search(pool, pool[positions], 5, exclude)
    exact, _ = ExactIndex().search(pool, pool[positions], 5, exclude)
    assert built.recall == pytest.approx(recall(found, exact))
    assert 0.3 < built.recall < 0.99 and built.k == 5
    assert f"recall at 5 is {built.recall:.3f}, less than 0.95: raise nprobe" in caplog.text


@pytest.mark.parametrize("dim, factory", [(32, "IVF64,PQ8x4fs"), (30, "IVF64,SQ8")])
def test_default_of_large_pools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dim: int, factory: str
) -> None:
    monkeypatch.setattr(faiss_index, "LARGE_POOL", 3000)
    index = FaissIndex(search_parameters="nprobe=30", cache_directory=str(tmp_path))
    pool, queries = clustered(4000, 1, dim), clustered(200, 2, dim)
    # These are not for small pools, which have a graph.
    small, _ = index.search(pool[:300], queries, 2)
    assert recall(small, ExactIndex().search(pool[:300], queries, 2)[0]) >= 0.95
    with caplog.at_level(logging.INFO):
        found, similarities = index.search(pool, queries, 2)
    exact, expected = ExactIndex().search(pool, queries, 2)
    assert recall(found, exact) >= 0.95
    right = found == exact
    np.testing.assert_allclose(similarities[right], expected[right], atol=1e-6)
    assert f"faiss index {factory} of 4000 vectors: recall at 2 is" in caplog.text
    # It is read again as it was built.
    again = FaissIndex(search_parameters="nprobe=30", cache_directory=str(tmp_path))
    monkeypatch.setattr(FaissIndex, "_build", None)
    np.testing.assert_array_equal(again.search(pool.copy(), queries, 2)[0], found)


@pytest.mark.parametrize("factory, parameters", FACTORIES)
def test_excluded_rows_are_never_found(tmp_path: Path, factory: str | None, parameters: str | None) -> None:
    pool = clustered(500, 1)
    exact, _ = ExactIndex().search(pool, pool[:20], 9)
    # Different numbers of excluded rows: a query's own and the nearest ones.
    exclude = [row[: number % 8].tolist() for number, row in enumerate(exact)]
    index = FaissIndex(factory, parameters, num_candidates=2, cache_directory=str(tmp_path))
    indices, _ = index.search(pool, pool[:20], 2, exclude)
    for row, forbidden in zip(indices.tolist(), exclude, strict=True):
        assert len(set(row)) == 2 and not set(row) & set(forbidden)


def test_whole_pool_where_too_few_are_proposed(tmp_path: Path) -> None:
    pool = clustered(300, 1)
    index = FaissIndex("IVF100,Flat", "nprobe=1", cache_directory=str(tmp_path))
    exclude = [[0], [], [5, 7]]
    found, expected = (search.search(pool, pool[:3], 200, exclude) for search in (index, ExactIndex()))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_kept_and_built_again_when_vectors_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    build = FaissIndex._build

    def counted(self: FaissIndex, pool: np.ndarray, k: int) -> Any:
        built.append(len(pool))
        return build(self, pool, k)

    monkeypatch.setattr(FaissIndex, "_build", counted)
    pool, queries = clustered(400, 1), clustered(10, 2)

    def search(vectors: np.ndarray, factory: str = "HNSW16") -> np.ndarray:
        return FaissIndex(factory, cache_directory=str(tmp_path)).search(vectors, queries, 3)[0]

    first = search(pool)
    # Another process would find the same file; a pool that is a memory map has the same content.
    np.save(tmp_path / "pool.npy", pool)
    np.testing.assert_array_equal(search(np.load(tmp_path / "pool.npy", mmap_mode="r")), first)
    assert built == [400]
    changed = pool.copy()
    changed[first[0, 0]] = -queries[0]
    assert search(changed)[0, 0] != first[0, 0]
    search(pool, "IVF4,Flat")
    assert built == [400] * 3
    damaged = sorted(tmp_path.glob("faiss-*/index.faiss"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for factory, vectors in (("HNSW16", pool), ("HNSW16", changed), ("IVF4,Flat", pool)):
        search(vectors, factory)
    assert len(built) == 4
    # One object asks for several pools in turn.
    index = FaissIndex("HNSW16", cache_directory=str(tmp_path))
    for vectors in (pool, changed, pool):
        expected, _ = ExactIndex().search(vectors, queries, 3)
        assert recall(index.search(vectors, queries, 3)[0], expected) > 0.9
    assert len(built) == 4


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux to see what is mapped")
@pytest.mark.parametrize("factory", ["HNSW16", "IVF8,Flat"])
def test_index_is_a_memory_map(tmp_path: Path, factory: str) -> None:
    index = FaissIndex(factory, cache_directory=str(tmp_path))
    # Also what this process has built itself.
    index.search(clustered(200, 1), clustered(2, 2), 1)
    assert f"{tmp_path}/faiss-" in Path("/proc/self/maps").read_text()


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    pool, queries = clustered(200, 1), clustered(5, 2)
    found, _ = FaissIndex(cache_directory=str(blocked / "cache")).search(pool, queries, 2)
    assert recall(found, ExactIndex().search(pool, queries, 2)[0]) > 0.9


def test_both_openmps_in_one_process(tmp_path: Path, running_process: type[RunningProcess]) -> None:
    """Imported in either order, with two threads, and in a forked worker."""
    # The modules of the package, without all the others that the package itself would import.
    program = f"""
import faiss, torch, os, sys, tempfile, types
import numpy as np, torch
sys.modules["allennlp_metaner"] = types.ModuleType("allennlp_metaner")
sys.modules["allennlp_metaner"].__path__ = [{str(Path(__file__).parents[2] / "allennlp_metaner")!r}]
torch.set_num_threads(2)
from allennlp_metaner.retrieval.faiss_index import FaissIndex
from allennlp_metaner.retrieval.similarity_index import ExactIndex
pool = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
pool /= np.linalg.norm(pool, axis=1, keepdims=True)
index = FaissIndex("IVF16,Flat", "nprobe=16", cache_directory=tempfile.mkdtemp(dir={str(tmp_path)!r}))
exact = ExactIndex().search(pool, pool[:500], 2)[0]
assert (index.search(pool, pool[:500], 2)[0] == exact).all()
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    os._exit(0 if (index.search(pool, pool[:500], 2)[0] == exact).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    # Here, PyTorch was imported before.
    process = running_process(exec, program, {}, folder=tmp_path, output=tmp_path / "printed")
    assert process.finish(300) == 0, process.printed
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_as_many_threads_as_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    seen = []
    monkeypatch.setattr(faiss, "omp_set_num_threads", seen.append)
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 7)
    FaissIndex("Flat", cache_directory=str(tmp_path)).search(clustered(20, 1), clustered(2, 2), 1)
    assert seen and seen == [torch.get_num_threads(), 7] * (len(seen) // 2)


def test_from_params_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Params({"type": "faiss", "factory": "IVF16,Flat", "search_parameters": "nprobe=4"})
    assert isinstance(SimilarityIndex.from_params(params), FaissIndex)
    for factory, parameters, message in (
        ("HNSW1x,nonsense", None, "factory='HNSW1x,nonsense'"),
        ("IVF16,Flat", "efSearch=64", "search_parameters='efSearch=64'"),
        ("HNSW32", "efSearch=many", "search_parameters='efSearch=many'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            FaissIndex(factory, parameters)
    with pytest.raises(ConfigurationError, match="num_candidates=0"):
        FaissIndex(num_candidates=0)
    index = FaissIndex("IVF256,Flat", cache_directory=str(tmp_path))
    with pytest.raises(ConfigurationError, match="256 lists, but the pool only 40"):
        index.search(clustered(40, 1), clustered(2, 2), 1)
    assert not list(tmp_path.glob("faiss-*/*"))
    with pytest.raises(ConfigurationError, match="k=41"):
        index.search(clustered(40, 1), clustered(2, 2), 41)
    assert index.search(clustered(40, 1), clustered(0, 2), 2)[0].shape == (0, 2)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigurationError, match=r"allennlp-metaner\[faiss\]"):
        FaissIndex()
