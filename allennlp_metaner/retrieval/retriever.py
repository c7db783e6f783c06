"""The sentences of a support pool that are most similar to a query: its support set (Eq. 4)."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Optional

import numpy as np
from allennlp.common import FromParams
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.retrieval.pool_encoding import encode_in_shards
from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder
from allennlp_metaner.retrieval.similarity_index import ExactIndex, SimilarityIndex
from allennlp_metaner.retrieval.support_pool import SupportPool
from allennlp_metaner.retrieval.vector_cache import VectorCache, cache_key

# Fewer sentences, as in prediction, are encoded faster than a cache that grows with every request pays off.
_MIN_CACHED_SENTENCES = 64


class Neighbor(NamedTuple):
    """A sentence of the pool and its cosine similarity to the query (Eq. 6)."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which a neighbour does not need
    similarity: float


class Retriever(FromParams):
    """
    Finds the `K` most similar sentences of a pool for each query.

    # Parameters

    sentence_encoder : `SentenceEncoder`
    similarity_index : `SimilarityIndex`, optional (default = `ExactIndex()`)
    num_neighbors : `int`, optional (default = `2`)
        The paper's `K`.
    exclude_equal_texts : `bool`, optional (default = `False`)
        Whether a query never gets a sentence with exactly its own words. Otherwise a duplicate in the pool
        shows the query's labels to its own support set.
    skip_most_similar : `bool`, optional (default = `False`)
        Whether, as in the published code, the ranks 2 to `K + 1` are taken, as if the most similar sentence
        were the query itself. The query is then not excluded in any other way.
    cache_directory : `str`, optional (default = `None`)
        Where vectors are kept between runs: see [`VectorCache`](./vector_cache.md) for the default.
    use_cache : `bool`, optional (default = `True`)
        Whether vectors are kept between runs. Those of fewer than 64 sentences never are.
    num_workers : `int`, optional (default = `None`)
        So many workers of Ray encode more than 16,384 different sentences that are to be kept, see
        [`encode_in_shards`](./pool_encoding.md#encode_in_shards). `None`: this process does it, with the same
        result.

    # Raises

    `ConfigurationError`, if `num_neighbors` or `num_workers` is not positive, or both `exclude_equal_texts`
    and `skip_most_similar` are set.
    """

    def __init__(
        self,
        sentence_encoder: SentenceEncoder,
        similarity_index: Optional[SimilarityIndex] = None,
        num_neighbors: int = 2,
        exclude_equal_texts: bool = False,
        skip_most_similar: bool = False,
        cache_directory: Optional[str] = None,
        use_cache: bool = True,
        num_workers: Optional[int] = None,
    ) -> None:
        if num_neighbors < 1:
            raise ConfigurationError(f"num_neighbors={num_neighbors} must be positive.")
        if exclude_equal_texts and skip_most_similar:
            raise ConfigurationError(
                "exclude_equal_texts and skip_most_similar are two ways to keep a query out of its own "
                "support set, and together would drop a real neighbour: set one of them."
            )
        if num_workers is not None and num_workers < 1:
            raise ConfigurationError(
                f"num_workers={num_workers} must be positive, or left out to encode in this process."
            )
        self.sentence_encoder = sentence_encoder
        self._num_workers = num_workers
        self.similarity_index = similarity_index or ExactIndex()
        self.num_neighbors = num_neighbors
        self._exclude_equal_texts = exclude_equal_texts
        self._skip_most_similar = skip_most_similar
        self._cache = VectorCache(cache_directory) if use_cache else None

    def fingerprint(self) -> str:
        """The fingerprint of the encoder: that of a pool whose vectors come from this retriever."""
        return self.sentence_encoder.fingerprint()

    def vectors(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """
        The vectors of `sentences`, from the cache if they are there.

        # Returns

        `np.ndarray`
            float32, shape `(num_sentences, dim)`, with L2-normalised rows.
        """
        if self._cache is None or len(sentences) < _MIN_CACHED_SENTENCES:
            return self.sentence_encoder.encode(sentences)
        key = cache_key(sentences, self.fingerprint())
        shards = self._cache.directory / f"{key}.shards"
        encode = partial(encode_in_shards, self.sentence_encoder, sentences, shards, key, self._num_workers)
        return self._cache.get_or_compute(key, encode)

    def nearest(
        self,
        pool: SupportPool,
        queries: Sequence[Sequence[str]],
        identity: Sequence[int | None] | None = None,
        query_vectors: np.ndarray | None = None,
    ) -> list[list[Neighbor]]:
        """
        # Parameters

        pool : `SupportPool`
        queries : `Sequence[Sequence[str]]`
            The words of each query.
        identity : `Sequence[Optional[int]]`, optional (default = `None`)
            For each query that is itself a sentence of the pool, its position there.
        query_vectors : `np.ndarray`, optional (default = `None`)
            The vectors of `queries`, `(num_queries, dim)`, if they are known: those of the pool, for
            instance.

        # Returns

        `List[List[Neighbor]]`
            For every query `num_neighbors` sentences, the most similar first.

        # Raises

        `ConfigurationError`, if the pool is too small, or its vectors are from another encoder than this one.
        """
        if query_vectors is None:
            if pool.fingerprint != self.fingerprint():
                raise ConfigurationError(
                    "the vectors of the support pool are from another encoder than those of the queries "
                    "would be: use the same model_name, pooling and max_length, or make the pool again."
                )
            query_vectors = self.vectors(queries)
        skipped = int(self._skip_most_similar)
        indices, similarities = self.similarity_index.search(
            pool.vectors, query_vectors, self.num_neighbors + skipped, self._excluded(pool, queries, identity)
        )
        return [
            [Neighbor(*neighbor) for neighbor in zip(*row, strict=True)]
            for row in zip(indices[:, skipped:].tolist(), similarities[:, skipped:].tolist(), strict=True)
        ]

    def _excluded(
        self, pool: SupportPool, queries: Sequence[Sequence[str]], identity: Sequence[int | None] | None
    ) -> list[list[int]] | None:
        """For every query, the positions in the pool that it must not get."""
        if self._skip_most_similar:
            return None
        identity = [None] * len(queries) if identity is None else identity
        return [
            [
                *([] if own is None else [own]),
                *(pool.positions_of(words) if self._exclude_equal_texts else []),
            ]
            for words, own in zip(queries, identity, strict=True)
        ]
