"""The reader around readers: every sentence becomes a task with its most similar source sentences."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr
from allennlp.data.fields import MetadataField, TextField

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.data.pretrained_files import archived_name
from allennlp_metaner.data.sentence import place_of, sentence_instance, words_and_tags
from allennlp_metaner.retrieval.retriever import Neighbor, Retriever
from allennlp_metaner.retrieval.support_pool import SupportPool
from allennlp_metaner.tasks.task_field import TaskField

Sentence = tuple[Sequence[str], Optional[Sequence[str]]]
"""The words of a sentence and, if known, their tags."""

POOL_DIRECTORY = "pool"
"""Folder of the serialization directory (and of the archive) that holds support pools."""


@DatasetReader.register("pseudo_tasks")
class PseudoTaskReader(DatasetReader):
    """
    Wraps a reader of labelled sentences. Each sentence is the query of a task; its support set is the K most
    similar sentences of a pool (Eq. 4-6). Without `pool_path` the pool is the file that is read, and a
    sentence is never in its own support set: the pseudo tasks of meta-training. With `pool_path`, the pool is
    a source-language file, whatever is read: the tasks of adaptation.

    An instance has the fields of its query (so that any trainer or evaluator can label it without
    adaptation) and the field `task`, a [`TaskField`](./task_field.md).

    A pool from `pool_path` is kept, with its vectors, in `serialization_dir/pool`;
    `include_in_archive: ["encoder", "pool"]` makes the archive work without the file.

    Registered as a `DatasetReader` with name "pseudo_tasks".

    # Parameters

    base_reader : `DatasetReader`
        Reads the queries. Its instances need a text field `tokens` and, where labels are known, a sequence
        label field `tags`: "ner_columns" of this package, "conll2003" of AllenNLP, ...
    retriever : `Retriever`
    pool_path : `str`, optional (default = `None`)
        The file of labelled source sentences. If `None`, the file that is read.
    pool_reader : `DatasetReader`, optional (default = `base_reader`)
        Reads `pool_path`, where source and target files have different layouts.
    mask_support : `bool`, optional (default = `True`)
        Whether an "entity_masking" indexer also masks support sentences. The authors' published code masks
        queries only.
    serialization_dir : `str`, optional (default = `None`)
        Given by AllenNLP.

    # Raises

    `ConfigurationError`, if the base reader has no token indexers, or a pool sentence no tags.
    """

    def __init__(
        self,
        base_reader: DatasetReader,
        retriever: Retriever,
        pool_path: Optional[str] = None,
        pool_reader: Optional[DatasetReader] = None,
        mask_support: bool = True,
        serialization_dir: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._base_reader = base_reader
        self._pool_reader = pool_reader or base_reader
        for reader in (self._base_reader, self._pool_reader):
            # Every process needs the whole pool; queries are shared out by this reader.
            reader._set_distributed_info(None)
        self._retriever = retriever
        self._pool_path = pool_path
        self._mask_support = mask_support
        self._token_indexers = _token_indexers(base_reader)
        self._pool: Optional[SupportPool] = None
        self._pool_instances: list[Instance] = []
        self._pool_directory: Optional[Path] = None
        if pool_path is not None and serialization_dir is not None:
            self._pool_directory = Path(serialization_dir) / POOL_DIRECTORY / archived_name(pool_path)
            if SupportPool.exists(self._pool_directory):
                # Now or never: an unpacked archive is deleted as soon as it is loaded.
                self._set_pool(SupportPool.load(self._pool_directory))

    def _read(self, file_path: PathOrStr) -> Iterator[Instance]:
        if self.get_worker_info() is not None:
            # A forked worker has none of the threads that its parent computes with, and would wait for them.
            torch.set_num_threads(1)
        instances = list(self._base_reader.read(file_path))
        sentences = [words_and_tags(instance) for instance in instances]
        places = [place_of(instance) for instance in instances]
        if self._pool_path is None:
            self._set_pool(self._build_pool(sentences, str(file_path)))
            yield from self.tasks(sentences, range(len(sentences)), self.pool.vectors, places)
        else:
            # Either may be an address, or (the pool's) a file that only its copy in the archive is left of.
            local = all(map(os.path.exists, (file_path, self._pool_path)))
            same_file = local and os.path.samefile(file_path, self._pool_path)
            identity = self._identity(sentences) if same_file else ()
            yield from self.tasks(sentences, identity, places=places)

    def tasks(
        self,
        sentences: Sequence[Sentence],
        identity: Sequence[Optional[int]] = (),
        query_vectors: Optional[np.ndarray] = None,
        places: Sequence[Optional[str]] = (),
    ) -> Iterator[Instance]:
        """
        # Parameters

        sentences : `Sequence[Sentence]`
            The words and, if known, the tags of each query.
        identity : `Sequence[Optional[int]]`, optional (default = `()`)
            For each query its own position in the pool, or `None`. If empty, no query is in the pool.
        query_vectors : `np.ndarray`, optional (default = `None`)
            The sentence vectors of the queries, if they are known, shape `(num_queries, dim)`.
        places : `Sequence[Optional[str]]`, optional (default = `()`)
            For each query where it is from ("file:line"), for messages. If empty, that is not known.

        # Returns

        `Iterator[Instance]`
            A task for each sentence, in order. Retrieval is one batch.
        """
        with exclusive():
            # Another thread may read a file that becomes the pool.
            pool, support = self.pool, self._pool_instances
            neighbors = self._retriever.nearest(
                pool, [words for words, _ in sentences], list(identity) or None, query_vectors
            )
        known_places = list(places) or [None] * len(sentences)
        for (words, tags), place, found in zip(sentences, known_places, neighbors, strict=True):
            yield self._task(sentence_instance(words, tags, place), pool, support, found)

    def text_to_instance(self, words: Sequence[str], tags: Optional[Sequence[str]] = None) -> Instance:
        """A task for one sentence; see [`tasks`](#tasks) for many at once."""
        return next(self.tasks([(words, tags)]))

    def apply_token_indexers(self, instance: Instance) -> None:
        task = instance.fields.get("task")
        sentences = [task.query, *task.support] if isinstance(task, TaskField) else [instance]
        for sentence in sentences:
            text = sentence["tokens"]
            assert isinstance(text, TextField)
            text.token_indexers = self._token_indexers

    @property
    @exclusive()
    def pool(self) -> SupportPool:
        """
        The labelled source sentences, read and encoded at the first use.

        # Raises

        `ConfigurationError`, if there is no `pool_path` and nothing was read yet.
        """
        if self._pool is None:
            if self._pool_path is None:
                raise ConfigurationError(
                    "this 'pseudo_tasks' reader has no pool to retrieve from: give it pool_path, the file of "
                    "labelled source sentences (usually in the config's 'validation_dataset_reader')"
                )
            sentences = [words_and_tags(instance) for instance in self._pool_reader.read(self._pool_path)]
            self._set_pool(self._build_pool(sentences, self._pool_path))
            if self._pool_directory is not None and self._pool is not None:
                self._pool.save(self._pool_directory)
        assert self._pool is not None
        return self._pool

    def _build_pool(self, sentences: Iterable[Sentence], source: str) -> SupportPool:
        words, tags = [], []
        for sentence, sentence_tags in sentences:
            if sentence_tags is None:
                raise ConfigurationError(
                    f"{source}: the sentence {' '.join(sentence)!r} has no tags, but every sentence of a "
                    "support pool needs them"
                )
            words.append(list(sentence))
            tags.append(list(sentence_tags))
        return SupportPool(
            sentences=words,
            tags=tags,
            vectors=self._retriever.vectors(words),
            fingerprint=self._retriever.fingerprint(),
        )

    @exclusive()
    def _set_pool(self, pool: SupportPool) -> None:
        if pool.fingerprint != self._retriever.fingerprint():
            # The archive was made with another sentence encoder than the one that queries go through now.
            pool = self._build_pool(zip(pool.sentences, pool.tags, strict=True), "the archived pool")
        self._pool = pool
        self._pool_instances = [
            sentence_instance(words, tags) for words, tags in zip(pool.sentences, pool.tags, strict=True)
        ]
        if not self._mask_support:
            for instance in self._pool_instances:
                for token in instance["tokens"]:  # type: ignore[attr-defined]
                    token.ent_type_ = None

    def _identity(self, sentences: Sequence[Sentence]) -> list[Optional[int]]:
        """
        Where in the pool each query stands, if both are from one file. The base reader may have left
        sentences out; of equal sentences, the first is the first.
        """
        seen: Counter[tuple[str, ...]] = Counter()
        identity: list[Optional[int]] = []
        for words, _ in sentences:
            positions = self.pool.positions_of(words)[seen[tuple(words)] :]
            seen[tuple(words)] += 1
            identity.append(positions[0] if positions else None)
        return identity

    def _task(
        self,
        query: Instance,
        pool: SupportPool,
        pool_instances: Sequence[Instance],
        neighbors: Sequence[Neighbor],
    ) -> Instance:
        support = [
            {
                "words": pool.sentences[neighbor.index],
                "tags": pool.tags[neighbor.index],
                "similarity": float(neighbor.similarity),
            }
            for neighbor in neighbors
        ]
        metadata = MetadataField({**query["metadata"].metadata, "support": support})  # type: ignore[attr-defined]
        query.fields["metadata"] = metadata
        task = TaskField(query, [pool_instances[neighbor.index] for neighbor in neighbors])
        return Instance({**query.fields, "task": task})


def _token_indexers(base_reader: DatasetReader) -> dict[str, TokenIndexer]:
    indexers = getattr(base_reader, "_token_indexers", None)
    if not isinstance(indexers, dict):
        raise ConfigurationError(
            f"the base reader {type(base_reader).__name__} has no token indexers, so its sentences cannot be "
            "indexed. Wrap a reader that takes 'token_indexers', such as 'ner_columns'"
        )
    return indexers
