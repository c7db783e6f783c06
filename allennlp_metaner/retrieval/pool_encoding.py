"""Vectors of many sentences: shard by shard, in this process or by workers of Ray."""

import io
import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np
from allennlp.common import Tqdm
from allennlp.common.util import lazy_groups_of

from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder
from allennlp_metaner.sharding.shard_folder import ShardFolder
from allennlp_metaner.sharding.shard_writing import write_shards

logger = logging.getLogger(__name__)

# About a minute's work of a core with a small encoder. What an interruption loses at most.
SENTENCES_PER_SHARD = 16_384

Words = tuple[str, ...]


def encode_in_shards(
    encoder: SentenceEncoder,
    sentences: Sequence[Sequence[str]],
    folder: Path,
    key: str,
    num_workers: Optional[int] = None,
    sentences_per_shard: int = SENTENCES_PER_SHARD,
) -> np.ndarray:
    """
    The vectors of many sentences. If there are more different ones than fit into a shard, they are kept shard
    by shard until all are there, so that an interrupted call goes on where it was. Shards do not depend on
    the number of workers, and so neither do the vectors, bit by bit, on machines of one kind.

    # Parameters

    encoder : `SentenceEncoder`
        It is pickled for workers.
    sentences : `Sequence[Sequence[str]]`
    folder : `Path`
        For the shards. It is removed in the end. If it cannot be made, nothing is kept, and there are no
        workers.
    key : `str`
        What the vectors depend on, see [`cache_key`](./vector_cache.md#cache_key): shards of another key are
        not used.
    num_workers : `int`, optional (default = `None`)
        See [`write_shards`](../sharding/shard_writing.md#write_shards).
    sentences_per_shard : `int`, optional (default = `16384`)

    # Returns

    `np.ndarray`
        float32, shape `(num_sentences, dim)`, as [`SentenceEncoder.encode`](./sentence_encoder.md#encode)
        gives them.
    """
    # Equal sentences get one vector, and those of a shard are of like length, so that little is padded.
    distinct = sorted(set(map(tuple, sentences)), key=lambda words: (sum(map(len, words)), words))
    if len(distinct) <= sentences_per_shard:
        return encoder.encode(sentences)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("%s cannot be made, so all sentences are encoded at once: %s", folder, error)
        return encoder.encode(sentences)
    shards = ShardFolder(folder, "npy")
    read = partial(_groups, distinct, sentences_per_shard)
    total = -(-len(distinct) // sentences_per_shard)
    with shards.job({"key": key, "sentences_per_shard": sentences_per_shard}):
        left = total - len(shards.done())
        written = write_shards(shards, read, partial(_load, encoder), num_workers)
        for _ in Tqdm.tqdm(written, total=left, desc="encoding shards"):
            pass
        vectors = _joined(shards, total, [tuple(words) for words in sentences], distinct)
    shutil.rmtree(folder, ignore_errors=True)
    return vectors


def _groups(distinct: list[Words], size: int) -> "list[list[Words]]":
    return list(lazy_groups_of(distinct, size))


def _load(encoder: SentenceEncoder) -> "partial[bytes]":
    return partial(_encoded, encoder)


def _encoded(encoder: SentenceEncoder, sentences: list[Words]) -> bytes:
    content = io.BytesIO()
    np.save(content, encoder.encode(sentences), allow_pickle=False)
    return content.getvalue()


def _joined(shards: ShardFolder, total: int, sentences: list[Words], distinct: list[Words]) -> np.ndarray:
    """The vectors of `sentences`, from shards with those of `distinct`; one shard is read at a time."""
    places = {words: row for row, words in enumerate(distinct)}
    rows = np.array([places[words] for words in sentences])
    order = np.argsort(rows, kind="stable")
    vectors = np.empty((0, 0), dtype=np.float32)
    first = 0
    for shard in range(total):
        of_shard = np.load(shards.file(shard), allow_pickle=False)
        if shard == 0:
            vectors = np.empty((len(sentences), of_shard.shape[1]), dtype=of_shard.dtype)
        start, end = np.searchsorted(rows[order], (first, first + len(of_shard)))
        chosen = order[start:end]
        vectors[chosen] = of_shard[rows[chosen] - first]
        first += len(of_shard)
    return vectors
