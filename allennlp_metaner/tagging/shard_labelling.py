"""Many documents to label: streamed, shard by shard, by this process or by workers of Ray."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.archives import check_archive
from allennlp_metaner.file_hash import file_hash
from allennlp_metaner.sharding.shard_folder import ShardFolder
from allennlp_metaner.sharding.shard_writing import Process, write_shards
from allennlp_metaner.tagging import outputs
from allennlp_metaner.tagging.documents import Source
from allennlp_metaner.tagging.inputs import STANDARD_INPUT, read_sources
from allennlp_metaner.tagging.name_tagger import NameTagger

DOCUMENTS_PER_SHARD = 1000
# A shard ends before it has all its documents if they have more characters, so that it takes minutes at most.
CHARACTERS_PER_DOCUMENT = 200
# What a tagger is made of, in archives, serialization directories and exported folders.
WEIGHTS = ("weights.th", "best.th", "model.safetensors", "pytorch_model.bin", "model.onnx", "config.json")


@dataclass(frozen=True)
class ShardLabelling:
    """
    Labels documents, and writes them to numbered files of JSON lines. What is in a file depends on the
    documents and the model, but not on how many workers there are, nor on how often they were interrupted.

    # Parameters

    archive_file : `str`
        See [`NameTagger.load`](./name_tagger.md#load).
    files : `list[str]`
    input_format : `str`, optional (default = `None`)
    encoding : `str`, optional (default = `"utf-8"`)
    word_column : `int`, optional (default = `0`)
        See [`read_sources`](./inputs.md#read_sources). Texts are read by paragraphs.
    documents_per_shard : `int`, optional (default = `1000`)
        A shard also ends after 200 times as many characters.
    tagger : `dict[str, Any]`, optional (default = `{}`)
        The other arguments of [`NameTagger.load`](./name_tagger.md#load).
    batch_size : `int`, optional (default = `32`)
        The most sentences that go through the model together.
    details : `bool`, optional (default = `False`)
        Whether lines have the sentences, with words, tags and neighbours.
    fail_fast : `bool`, optional (default = `False`)
        Whether the first document that cannot be labelled ends the work.

    # Raises

    `ConfigurationError`, if standard input is to be read, or `documents_per_shard` is not positive.
    """

    archive_file: str
    files: list[str]
    input_format: Optional[str] = None
    encoding: str = "utf-8"
    word_column: int = 0
    documents_per_shard: int = DOCUMENTS_PER_SHARD
    tagger: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    details: bool = False
    fail_fast: bool = False

    def __post_init__(self) -> None:
        if STANDARD_INPUT in self.files:
            raise ConfigurationError(
                "standard input cannot be labelled in shards, since it cannot be read again after an "
                "interruption. Give files"
            )
        if self.documents_per_shard < 1:
            raise ConfigurationError(f"documents_per_shard={self.documents_per_shard} must be positive")

    def write(
        self,
        folder: Path,
        num_workers: Optional[int] = None,
        anew: bool = False,
        on_shard: Callable[[int], object] = lambda shard: None,
    ) -> dict[str, Any]:
        """
        Write all shards, or those that an interrupted call has left to do.

        # Parameters

        folder : `Path`
            See [`ShardFolder`](../sharding/shard_folder.md#shardfolder).
        num_workers : `int`, optional (default = `None`)
            See [`write_shards`](../sharding/shard_writing.md#write_shards). On GPUs, each worker has one.
        anew : `bool`, optional (default = `False`)
            Whether shards that are there are removed.
        on_shard : `Callable[[int], object]`, optional (default = `lambda shard: None`)
            Called with the number of each shard that was written.

        # Returns

        `dict[str, Any]`
            The manifest: what the shards depend on, the number of documents, entities and errors, and for
            each shard its name, these numbers, and the SHA-256 of its content.

        # Raises

        `ConfigurationError`, if `folder` has shards of another job, another process is writing there, or,
        with `fail_fast`, a document cannot be labelled.
        """
        shards = ShardFolder(folder, "jsonl")
        job = self.job()
        with shards.job(job, anew):
            finished = shards.manifest
            if finished is None:
                on_gpu = self.tagger.get("cuda_device", -1) >= 0
                load = partial(self.load, alone=num_workers is not None)
                for shard in write_shards(shards, self.read, load, num_workers, int(on_gpu)):
                    on_shard(shard)
                finished = {**job, **_totals(shards)}
                shards.finish(finished)
        return finished

    def job(self) -> dict[str, Any]:
        """What the shards depend on."""
        text = hashlib.sha256()
        for file in self.files:
            text.update(f"{json.dumps(file)} {file_hash(file)}\n".encode())
        return {
            "model": _model_hash(self.archive_file),
            "tagger": {key: self.tagger[key] for key in sorted(self.tagger) if key != "cuda_device"},
            "text": text.hexdigest(),
            "reading": [self.input_format, self.encoding, self.word_column],
            "documents_per_shard": self.documents_per_shard,
            "batch_size": self.batch_size,
            "details": self.details,
        }

    def read(self) -> Iterator[list[Source]]:
        """The documents of each shard."""
        group: list[Source] = []
        size = 0
        reading = (self.files, self.input_format, self.encoding, self.word_column)
        for source in read_sources(*reading, paragraphs=True):
            group.append(source)
            size += len(source.text)
            full = self.documents_per_shard
            if len(group) == full or size > CHARACTERS_PER_DOCUMENT * full:
                yield group
                group, size = [], 0
        if group:
            yield group

    def load(self, alone: bool = False) -> Process:
        """
        The model, as what labels the documents of a shard; `alone`: in a process that sees one GPU at most.
        """
        settings = dict(self.tagger)
        if alone and settings.get("cuda_device", -1) >= 0:
            settings["cuda_device"] = 0
        return partial(self._labelled, NameTagger.load(self.archive_file, **settings))

    def _labelled(self, tagger: NameTagger, sources: list[Source]) -> bytes:
        documents = tagger.pipe(sources, self.batch_size, self.fail_fast)
        return "".join(outputs.json_lines(documents, self.details)).encode()


def _model_hash(archive_file: str) -> str:
    path = check_archive(archive_file)
    files = [path] if path.is_file() else [path / name for name in WEIGHTS if (path / name).is_file()]
    return hashlib.sha256(" ".join(map(file_hash, files)).encode()).hexdigest()


def _totals(shards: ShardFolder) -> dict[str, Any]:
    """The numbers of the manifest, by what the files say: most of them may be those of earlier calls."""
    keys = ("documents", "entities", "errors")
    counted = [_counts(shards.file(shard)) for shard in sorted(shards.done())]
    return {**{key: sum(counts[key] for counts in counted) for key in keys}, "shards": counted}


def _counts(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    documents = [json.loads(line) for line in content.splitlines()]
    return {
        "file": file.name,
        "documents": len(documents),
        "entities": sum(len(document["entities"]) for document in documents),
        "errors": sum("error" in document for document in documents),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
