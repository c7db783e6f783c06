"""The most similar rows of a pool, by cosine (Eq. 4 and 6)."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.nn.linear import full_precision, linear

# More candidates than wanted, so that rounding and a few ties at the k-th place need no second look.
_MARGIN = 8
# The relative rounding error of one float32 operation.
_UNIT_ROUNDOFF = 2.0**-24
# Pairs of vectors multiplied at a time in float64: about 25 MB with 384 dimensions.
_PAIRS_AT_ONCE = 8192
# Scores of which only the highest is looked at first.
_GROUP_SIZE = 16


class SimilarityIndex(Registrable):
    """Finds the rows of a pool that are most similar to a query."""

    default_implementation = "exact"

    def search(
        self,
        pool: np.ndarray,
        queries: np.ndarray,
        k: int,
        exclude: Sequence[Sequence[int]] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        # Parameters

        pool : `np.ndarray`
            float32, shape `(pool_size, dim)`, with L2-normalised rows; a memory map will do.
        queries : `np.ndarray`
            float32, shape `(num_queries, dim)`, with L2-normalised rows.
        k : `int`
            The number of rows wanted per query.
        exclude : `Sequence[Sequence[int]]`, optional (default = `None`)
            For every query, the positions in the pool that it must not get.

        # Returns

        `Tuple[np.ndarray, np.ndarray]`
            Positions in the pool (int64) and similarities (float32), both of shape `(num_queries, k)`, the
            most similar first.

        # Raises

        `ConfigurationError`, if a query has fewer than `k` rows to choose from.
        """
        raise NotImplementedError


@SimilarityIndex.register("exact")
class ExactIndex(SimilarityIndex):
    """
    Compares every query with the whole pool: block by block, so that memory stays bounded, and exactly.

    The result is that of sorting all dot products, summed in float64, with ties broken by the lower
    position in the pool. Float32 products only choose candidates: their rounding differs with the position
    in a block, and must not decide between two sentences.

    Registered as a `SimilarityIndex` with name "exact".

    # Parameters

    query_block : `int`, optional (default = `512`)
        The number of queries in a block.
    pool_block : `int`, optional (default = `8192`)
        The number of pool rows in a block. A block of float32 products takes `4 * query_block * pool_block`
        bytes: 16 MiB by default.
    """

    def __init__(self, query_block: int = 512, pool_block: int = 8192) -> None:
        if min(query_block, pool_block) < 1:
            raise ConfigurationError(
                f"query_block={query_block} and pool_block={pool_block} must be positive."
            )
        self._query_block = query_block
        self._pool_block = pool_block

    def search(
        self,
        pool: np.ndarray,
        queries: np.ndarray,
        k: int,
        exclude: Sequence[Sequence[int]] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = excluded_pairs(len(pool), len(queries), k, exclude)
        indices = np.empty((len(queries), k), dtype=np.int64)
        similarities = np.empty((len(queries), k), dtype=np.float32)
        with torch.inference_mode(), full_precision():
            for start in range(0, len(queries), self._query_block):
                block = slice(start, start + self._query_block)
                pairs = slice(*np.searchsorted(rows, (block.start, block.stop)))
                excluded = rows[pairs] - start, columns[pairs]
                indices[block], similarities[block] = self._search_block(pool, queries[block], k, excluded)
        return indices, similarities

    def _search_block(
        self, pool: np.ndarray, queries: np.ndarray, k: int, excluded: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, columns = self._candidates(pool, queries, k + _MARGIN, excluded)
        # A float32 dot product of unit vectors is off by dim * _UNIT_ROUNDOFF at most, in whatever order it
        # is summed. So whatever belongs to the exact top k is at most twice that below the k-th score.
        threshold = scores[:, k - 1] - 2.2 * pool.shape[1] * _UNIT_ROUNDOFF
        unsure = (scores[:, -1] >= threshold) & (scores.shape[1] < len(pool))
        near = np.nonzero((scores >= threshold[:, None]) & ~unsure[:, None])
        indices = np.empty((len(queries), k), dtype=np.int64)
        similarities = np.empty((len(queries), k), dtype=np.float32)
        sure = np.flatnonzero(~unsure)
        indices[sure], similarities[sure] = best_pairs(pool, queries, near[0], columns[near], k)
        # Crowded rows: all their near pairs. So few at a time that these fit in a block, however many they
        # are.
        doubtful = np.flatnonzero(unsure)
        step = max(1, self._query_block * self._pool_block // len(pool))
        for part in (doubtful[start : start + step] for start in range(0, len(doubtful), step)):
            near = self._near_pairs(pool, queries, threshold, part, excluded)
            indices[part], similarities[part] = best_pairs(pool, queries, *near, k)
        return indices, similarities

    def _candidates(
        self, pool: np.ndarray, queries: np.ndarray, count: int, excluded: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `count` highest float32 scores of each query and their positions, `(num_queries, <= count)`."""
        best = torch.empty(len(queries), 0)
        columns = torch.empty(len(queries), 0, dtype=torch.long)
        for start, scores in self._scores(pool, queries, excluded):
            block_best, block_columns = _topk(scores, count)
            best = torch.cat([best, block_best], dim=1)
            columns = torch.cat([columns, block_columns + start], dim=1)
            best, order = best.topk(min(count, best.size(1)))
            columns = columns.gather(1, order)
        return best.numpy(), columns.numpy()

    def _near_pairs(
        self,
        pool: np.ndarray,
        queries: np.ndarray,
        threshold: np.ndarray,
        part: np.ndarray,
        excluded: tuple[np.ndarray, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """All pairs (query of `part`, pool row) whose float32 score reaches the threshold of the query."""
        row_of = np.full(len(queries), -1)
        row_of[part] = np.arange(len(part))
        kept = row_of[excluded[0]] >= 0
        inner = row_of[excluded[0][kept]], excluded[1][kept]
        limit = torch.from_numpy(threshold[part]).unsqueeze(1)
        found = [
            (near[:, 0], near[:, 1] + start)
            for start, scores in self._scores(pool, queries[part], inner)
            for near in [(scores >= limit).nonzero()]
        ]
        rows, columns = (torch.cat(column).numpy() for column in zip(*found, strict=True))
        return part[rows], columns

    def _scores(
        self, pool: np.ndarray, queries: np.ndarray, excluded: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Float32 products with one block of the pool after the other; minus infinity for excluded pairs."""
        rows, columns = excluded
        query_tensor = torch.tensor(queries, dtype=torch.float32)
        for start in range(0, len(pool), self._pool_block):
            block = torch.tensor(pool[start : start + self._pool_block], dtype=torch.float32)
            scores = linear(query_tensor, block)
            inside = (columns >= start) & (columns < start + len(block))
            scores[torch.from_numpy(rows[inside]), torch.from_numpy(columns[inside] - start)] = -torch.inf
            yield start, scores


@SimilarityIndex.register("random")
class RandomIndex(SimilarityIndex):
    """
    The control: `k` distinct rows of the pool drawn at random, with their true similarities.

    A query's draw depends on `seed`, its vector and what it excludes, not on the other queries.

    Registered as a `SimilarityIndex` with name "random".

    # Parameters

    seed : `int`, optional (default = `13`)
    """

    def __init__(self, seed: int = 13) -> None:
        self._seed = seed

    def search(
        self,
        pool: np.ndarray,
        queries: np.ndarray,
        k: int,
        exclude: Sequence[Sequence[int]] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = excluded_pairs(len(pool), len(queries), k, exclude)
        bounds = np.searchsorted(rows, np.arange(len(queries) + 1))
        drawn = np.empty((len(queries), k), dtype=np.int64)
        for row, query in enumerate(queries):
            drawn[row] = self._draw(len(pool), query, k, columns[bounds[row] : bounds[row + 1]])
        return best_pairs(pool, queries, np.repeat(np.arange(len(queries)), k), drawn.reshape(-1), k)

    def _draw(self, pool_size: int, query: np.ndarray, k: int, excluded: np.ndarray) -> np.ndarray:
        content = hashlib.sha256(np.asarray(query, dtype=np.float32).tobytes()).digest()
        generator = np.random.default_rng([self._seed, int.from_bytes(content, "big")])
        positions = generator.choice(pool_size - len(excluded), size=k, replace=False)
        # Drawn among the allowed rows; every excluded row at or below moves a position up by one.
        for position in excluded:
            positions[positions >= position] += 1
        return positions


def excluded_pairs(
    pool_size: int, num_queries: int, k: int, exclude: Sequence[Sequence[int]] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct excluded pairs (query, pool position) in ascending order, after checking what is left."""
    exclude = [()] * num_queries if exclude is None else exclude
    if len(exclude) != num_queries:
        raise ConfigurationError(f"exclude has {len(exclude)} entries for {num_queries} queries.")
    lengths = [len(positions) for positions in exclude]
    columns = np.fromiter(chain.from_iterable(exclude), dtype=np.int64, count=sum(lengths))
    if len(columns) and not (columns.min() >= 0 and columns.max() < pool_size):
        raise ConfigurationError(f"exclude names positions outside the pool of {pool_size} sentences.")
    pairs = np.unique(np.repeat(np.arange(num_queries), lengths) * pool_size + columns)
    rows, columns = np.divmod(pairs, max(pool_size, 1))
    most = int(np.bincount(rows).max(initial=0))
    if k < 1 or (num_queries and k > pool_size - most):
        raise ConfigurationError(
            f"k={k} neighbours were asked for: it must be at least 1, and at most what there is to choose "
            f"from. The pool has {pool_size} sentences, of which up to {most} are excluded for a query."
        )
    return rows, columns


def _topk(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `scores.topk(count)`, faster: only the groups with the highest maxima can hold one of the highest scores.
    Returns fewer where there are fewer.
    """
    num_groups = scores.size(1) // _GROUP_SIZE
    if num_groups <= count:
        return scores.topk(min(count, scores.size(1)))
    grouped = num_groups * _GROUP_SIZE
    # A group's members are `num_groups` apart, which lets the maxima be taken of whole rows.
    maxima = scores[:, :grouped].view(len(scores), _GROUP_SIZE, num_groups).amax(dim=1)
    groups = maxima.topk(count).indices
    members = groups.unsqueeze(2) + torch.arange(0, grouped, num_groups)
    rest = torch.arange(grouped, scores.size(1)).expand(len(scores), -1)
    columns = torch.cat([members.flatten(1), rest], dim=1)
    best, order = scores.gather(1, columns).topk(count)
    return best, columns.gather(1, order)


def best_pairs(
    pool: np.ndarray, queries: np.ndarray, rows: np.ndarray, columns: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """
    The `k` most similar of the pairs (query, pool row) of each query that occurs in `rows`, in order of the
    queries.

    Every sum runs over one contiguous row, so that a pair's similarity does not depend on what is beside it.
    """
    similarities = np.empty(len(rows))
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        products = pool[columns[part]].astype(np.float64) * queries[rows[part]]
        similarities[part] = products.sum(axis=1)
    order = np.lexsort((columns, -similarities, rows))
    first = np.unique(rows[order], return_index=True)[1]
    chosen = order[first[:, None] + np.arange(k)]
    return columns[chosen], similarities[chosen].astype(np.float32)
