"""Approximate search in large pools, by the library faiss."""

import hashlib
import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.retrieval.similarity_index import (
    ExactIndex,
    SimilarityIndex,
    best_pairs,
    excluded_pairs,
)
from allennlp_metaner.retrieval.vector_cache import DirectoryCache

logger = logging.getLogger(__name__)

# Rows that are added or hashed at a time: bounds the memory for a pool that is a memory map.
_ROWS_AT_ONCE = 65_536
# Queries of which recall is measured. They are rows of the pool, as in meta-training.
_RECALL_QUERIES = 200
# Training rows for each centroid of an inverted file: faiss warns below 39, and takes 256, which are slow.
_ROWS_PER_CENTROID = 64
# Below this recall when it is built, an index is worth a warning.
LOWEST_RECALL = 0.95
# From so many sentences on, the default is an inverted file of compressed vectors.
LARGE_POOL = 100_000
CANDIDATES, CANDIDATES_OF_COMPRESSED = 16, 128


class BuiltIndex(NamedTuple):
    """An index of faiss, and its recall at `k`, measured when it was built."""

    index: Any
    recall: float
    k: int


class _IndexCache(DirectoryCache[BuiltIndex]):
    """Indexes on disk, `directory/KEY/index.faiss`; what is read is a memory map."""

    plural = "faiss indexes"

    def _describe(self, content: BuiltIndex) -> dict[str, Any]:
        return {"recall": content.recall, "k": content.k}

    def _write(self, entry: Path, content: BuiltIndex) -> None:
        _faiss().write_index(content.index, str(entry / "index.faiss"))

    def _read(self, entry: Path, metadata: dict[str, Any]) -> BuiltIndex:
        faiss = _faiss()
        try:
            index = faiss.read_index(str(entry / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(f"faiss cannot read the index: {error}") from error
        return BuiltIndex(index, metadata["recall"], metadata["k"])


@SimilarityIndex.register("faiss")
class FaissIndex(SimilarityIndex):
    """
    Approximate nearest neighbours by [faiss](https://faiss.ai), for pools of a million sentences and more. It
    proposes candidates, whose similarities are then computed from the vectors themselves, so those are exact
    and only a neighbour may be missing. Where it proposes too few, the query is compared with the whole pool.

    The index of a pool is built at its first use, which takes minutes for a million vectors, and kept beside
    the vectors in the cache, under a key of the vectors' content: other vectors get a new one. It is read as
    a memory map. When it is built, its recall against "exact" is logged.

    Needs the extra `[faiss]` of this package. Registered as a `SimilarityIndex` with name "faiss".

    # Parameters

    factory : `str`, optional (default = `None`)
        faiss's description of the index: "HNSW32" (a graph; building takes long), "IVF4096,Flat" (an inverted
        file of 4,096 lists; needs at least as many vectors), "OPQ64,IVF4096,PQ64" (compressed), ... `None`:
        for pools of 100,000 sentences and more, an inverted file of about as many lists as the root of their
        number, with four bits for each four dimensions ("IVF1024,PQ96x4fs" for a million vectors of 384
        dimensions), or a byte for each, if their number cannot be divided; for smaller pools, "HNSW32".
    search_parameters : `str`, optional (default = `None`)
        faiss's settings of the search, such as "efSearch=256" for HNSW or "nprobe=32" for IVF. The more, the
        slower and the better. If `None`, "efSearch=128" for HNSW and "nprobe=32" for IVF. With the default
        factory, they are those of large pools.
    num_candidates : `int`, optional (default = `None`)
        How many candidates faiss is asked for beyond those that are excluded; at least K. Compressed indexes
        need more. `None`: 128 for the default factory, otherwise 16.
    cache_directory : `str`, optional (default = `None`)
        As that of the retriever: if `None`, the environment variable `METANER_CACHE`, or else
        `~/.cache/allennlp_metaner`.

    # Raises

    `ConfigurationError`, if faiss is not installed or does not know the factory or a parameter.
    """

    def __init__(
        self,
        factory: Optional[str] = None,
        search_parameters: Optional[str] = None,
        num_candidates: Optional[int] = None,
        cache_directory: Optional[str] = None,
    ) -> None:
        if num_candidates is None:
            num_candidates = CANDIDATES if factory is not None else CANDIDATES_OF_COMPRESSED
        if num_candidates < 1:
            raise ConfigurationError(
                f"num_candidates={num_candidates} of the index 'faiss' must be at least 1"
            )
        self._factory = factory
        self._search_parameters = search_parameters
        self._num_candidates = num_candidates
        self._cache = _IndexCache(cache_directory)
        self._pool: Optional[weakref.ref[np.ndarray]] = None
        self._built: Optional[BuiltIndex] = None
        # What is wrong with the settings is told before a pool is encoded.
        self._prepared(self._new_index(8, LARGE_POOL))

    def search(
        self,
        pool: np.ndarray,
        queries: np.ndarray,
        k: int,
        exclude: Sequence[Sequence[int]] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = excluded_pairs(len(pool), len(queries), k, exclude)
        if len(queries) == 0:
            return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        index = self.index_of(pool, k).index
        return self._search(index, pool, queries, k, rows, columns)

    @exclusive()
    def index_of(self, pool: np.ndarray, k: int = 2) -> BuiltIndex:
        """
        The index of a pool, which is built if it is not in the cache.

        # Parameters

        pool : `np.ndarray`
            float32, shape `(pool_size, dim)`, with L2-normalised rows.
        k : `int`, optional (default = `2`)
            For the recall that is measured if the index is built.
        """
        if self._built is None or self._pool is None or self._pool() is not pool:
            key = self._key(pool)
            built = self._cache.get_or_compute(key, lambda: self._build(pool, k))
            # A second time, since what was just built is in memory, and what is stored is a memory map.
            built = self._cache.get_or_compute(key, lambda: built)
            self._prepared(built.index)
            self._pool, self._built = weakref.ref(pool), built
        return self._built

    def _search(
        self,
        index: Any,
        pool: np.ndarray,
        queries: np.ndarray,
        k: int,
        rows: np.ndarray,
        columns: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        most = int(np.bincount(rows).max(initial=0))
        count = min(max(k, self._num_candidates) + most, len(pool))
        with _threads():
            found = index.search(np.ascontiguousarray(queries, dtype=np.float32), count)[1]
        # -1 stands where faiss found fewer.
        allowed = found >= 0
        forbidden = set(zip(rows.tolist(), columns.tolist(), strict=True))
        for row in np.unique(rows):
            allowed[row] &= [(int(row), position) not in forbidden for position in found[row].tolist()]
        indices = np.empty((len(queries), k), dtype=np.int64)
        similarities = np.empty((len(queries), k), dtype=np.float32)
        enough = allowed.sum(axis=1) >= k
        pairs = np.nonzero(allowed & enough[:, None])
        indices[enough], similarities[enough] = best_pairs(pool, queries, pairs[0], found[pairs], k)
        few = np.flatnonzero(~enough)
        if len(few):
            excluded = [columns[slice(*np.searchsorted(rows, (row, row + 1)))].tolist() for row in few]
            indices[few], similarities[few] = ExactIndex().search(pool, queries[few], k, excluded)
        return indices, similarities

    def _build(self, pool: np.ndarray, k: int) -> BuiltIndex:
        index = self._new_index(pool.shape[1], len(pool))
        factory = self._factory_of(pool.shape[1], len(pool))
        lists = _faiss().try_extract_index_ivf(index)
        training: np.ndarray = pool
        if lists is not None:
            if len(pool) < lists.nlist:
                raise ConfigurationError(
                    f"factory={factory!r} of the index 'faiss' has {lists.nlist} lists, but the pool "
                    f"only {len(pool)} sentences: take fewer lists, or the index 'exact'"
                )
            size = min(len(pool), _ROWS_PER_CENTROID * lists.nlist)
            training = pool[np.sort(np.random.default_rng(13).permutation(len(pool))[:size])]
        try:
            with _threads():
                index.train(np.ascontiguousarray(training, dtype=np.float32))
                for start in range(0, len(pool), _ROWS_AT_ONCE):
                    block = pool[start : start + _ROWS_AT_ONCE]
                    index.add(np.ascontiguousarray(block, dtype=np.float32))
        except RuntimeError as error:
            raise ConfigurationError(
                f"faiss cannot build factory={factory!r} of {len(pool)} vectors, {pool.shape[1]} "
                f"numbers each ({error}): take another factory, or the index 'exact'"
            ) from error
        self._prepared(index)
        recall, k = self._recall(index, pool, k)
        message = f"faiss index {factory} of {len(pool)} vectors: recall at {k} is {recall:.3f}"
        if recall < LOWEST_RECALL:
            logger.warning("%s, less than %s: raise nprobe or efSearch", message, LOWEST_RECALL)
        else:
            logger.info(message)
        return BuiltIndex(index, recall, k)

    def _recall(self, index: Any, pool: np.ndarray, k: int) -> tuple[float, int]:
        """The share of the exact top `k` that is found, for rows of the pool without themselves; and `k`."""
        k = min(k, len(pool) - 1)
        if k < 1:
            return 1.0, 1
        positions = np.unique(np.linspace(0, len(pool) - 1, _RECALL_QUERIES).astype(np.int64))
        queries, rows = pool[positions], np.arange(len(positions))
        found, _ = self._search(index, pool, queries, k, rows, positions)
        exact, _ = ExactIndex().search(pool, queries, k, [[position] for position in positions.tolist()])
        return float(np.mean([np.isin(*row).mean() for row in zip(exact, found, strict=True)])), k

    def _factory_of(self, dim: int, size: int) -> str:
        if self._factory is not None:
            return self._factory
        if size < LARGE_POOL:
            return "HNSW32"
        num_lists = 2 ** round(math.log2(math.sqrt(size)))
        return f"IVF{num_lists}," + ("SQ8" if dim % 4 else f"PQ{dim // 4}x4fs")

    def _new_index(self, dim: int, size: int) -> Any:
        faiss = _faiss()
        try:
            return faiss.index_factory(dim, self._factory_of(dim, size), faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise ConfigurationError(
                f"factory={self._factory!r} of the index 'faiss' is none that faiss knows: give one such as "
                f"'HNSW32' or 'IVF4096,Flat' ({error})"
            ) from error

    def _prepared(self, index: Any) -> None:
        """Sets the parameters of the search, which are not stored with the index."""
        faiss, parameters = _faiss(), self._search_parameters
        is_ivf = faiss.try_extract_index_ivf(index) is not None
        if parameters is None or (self._factory is None and not is_ivf):
            is_graph = "HNSW" in (self._factory or "HNSW")
            parameters = "nprobe=32" if is_ivf else "efSearch=128" if is_graph else ""
        if not parameters:
            return
        try:
            faiss.ParameterSpace().set_index_parameters(index, parameters)
        except RuntimeError as error:
            raise ConfigurationError(
                f"search_parameters={parameters!r} do not suit factory={self._factory!r} of the index "
                "'faiss': give such as 'efSearch=128' for HNSW, 'nprobe=32' for IVF"
            ) from error

    def _key(self, pool: np.ndarray) -> str:
        factory = self._factory_of(pool.shape[1], len(pool))
        digest = hashlib.sha256(f"{factory} {pool.shape} {_faiss().__version__}".encode())
        for start in range(0, len(pool), _ROWS_AT_ONCE):
            digest.update(np.ascontiguousarray(pool[start : start + _ROWS_AT_ONCE], dtype=np.float32).data)
        return f"faiss-{digest.hexdigest()}"


@contextmanager
def _threads() -> Iterator[None]:
    """
    faiss brings an OpenMP of its own, beside PyTorch's: as many threads as that has. In a forked worker,
    where that is one, faiss waits for no thread that the fork has lost.
    """
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigurationError(
            f"the similarity index 'faiss' needs the package faiss-cpu ({error}): install "
            "allennlp-metaner[faiss], or take the index 'exact'"
        ) from error
    return faiss
