"""
A folder of pseudo labels: the sentences, what each teacher says of their words, and what they say together.

    job.json        what is labelled by whom, so that an interrupted run can be told from another one
    words.jsonl     the words of a sentence a line, equal sentences once
    vocabulary/     the teachers' labels
    teacher-1/      shards: probabilities (float16) and well-formed tags of every word
    together/       shards: mean probabilities, the best well-formed tags by them, whether all agree
    vectors/        if asked for, shards: a vector of every word (float16) by the first teacher's encoder
    neighbors/      if asked for, shards: weights of words by the tags of those with the nearest vectors
    manifest.json   counts and shares of types; written last, so that where it is, the folder is complete
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from allennlp.common.checks import ConfigurationError
from safetensors.torch import load_file, save

from allennlp_metaner.data.lines import read_lines

JOB, WORDS, MANIFEST, VOCABULARY, TOGETHER = (
    "job.json",
    "words.jsonl",
    "manifest.json",
    "vocabulary",
    "together",
)

VECTORS, NEIGHBORS = "vectors", "neighbors"
MEAN_NEIGHBOR_WEIGHTS = "mean_neighbor_weights"
"""The key of the manifest that is there if `neighbors/` belongs to the tags in `together/`."""

SENTENCES_PER_SHARD = 1024


class PseudoLabelled(NamedTuple):
    """
    A sentence with its pseudo labels.

    # Parameters

    words : `list[str]`
    probabilities : `torch.Tensor`
        The mean of the teachers', shape `(num_words, num_labels)`, float32.
    tags : `torch.Tensor`
        Indices of the best well-formed tags, shape `(num_words,)`.
    agreement : `torch.Tensor`
        Whether all teachers have the same tag for a word, shape `(num_words,)`, `bool`.
    neighbor_weights : `torch.Tensor`, optional (default = `None`)
        See [`neighbor_weights`](./neighbor_weights.md), shape `(num_words,)`; `None` if the folder has none.
    """

    words: list[str]
    probabilities: torch.Tensor
    tags: torch.Tensor
    agreement: torch.Tensor
    neighbor_weights: Optional[torch.Tensor] = None


def shard_file(folder: Path, part: str, shard: int) -> Path:
    """Where a shard of `part` ("teacher-1" or "together") is."""
    return folder / part / f"{shard:05d}.safetensors"


def serialized(tensors: dict[str, torch.Tensor]) -> bytes:
    """The content of a shard."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def unique(sentences: Iterable[Sequence[str]]) -> list[list[str]]:
    """The sentences in order, equal ones once."""
    return [list(words) for words in dict.fromkeys(tuple(words) for words in sentences)]


def read_words(folder: Path) -> list[list[str]]:
    """The words of each sentence of a folder."""
    return [json.loads(line) for line in read_lines(folder / WORDS, "utf-8") if line]


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    # Raises

    `ConfigurationError`, if the folder is not there or not complete.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigurationError(
            f"{folder} has no {MANIFEST}, so it is no folder of pseudo labels, or not complete: make it with "
            f"`allennlp metaner-pseudo-label ARCHIVE --text FILE --output-directory {folder}`, or run that "
            "again to go on"
        )
    manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return manifest


def read_pseudo_labels(folder: Path) -> Iterator[PseudoLabelled]:
    """
    The sentences of a complete folder, in order.

    # Raises

    `ConfigurationError`, if the folder is not complete or a shard does not fit its sentences.
    """
    manifest = read_manifest(folder)
    sentences = iter(read_words(folder))
    for shard in range(manifest["num_shards"]):
        path = shard_file(folder, TOGETHER, shard)
        tensors = load_file(path)
        of_shard = list(islice(sentences, SENTENCES_PER_SHARD))
        lengths = [len(words) for words in of_shard]
        if sum(lengths) != len(tensors["tags"]):
            raise ConfigurationError(
                f"{path} has labels of {len(tensors['tags'])} words, but {WORDS} has {sum(lengths)} in its "
                "place: the folder was changed. Make it again"
            )
        columns = [tensors[name].split(lengths) for name in ("probabilities", "tags", "agreement")]
        near: Sequence[Optional[torch.Tensor]] = [None] * len(lengths)
        if MEAN_NEIGHBOR_WEIGHTS in manifest:
            near = load_file(shard_file(folder, NEIGHBORS, shard))["weights"].split(lengths)
        for words, probabilities, tags, agreement, weights in zip(of_shard, *columns, near, strict=True):
            yield PseudoLabelled(words, probabilities.float(), tags.long(), agreement.bool(), weights)


def type_shares(tags: Iterable[Sequence[str]]) -> dict[str, float]:
    """The entities of each type a word, by their first words in BIO."""
    counts: Counter[str] = Counter()
    num_words = 0
    for sentence in tags:
        num_words += len(sentence)
        counts.update(tag[2:] for tag in sentence if tag.startswith("B-"))
    return {type_: counts[type_] / max(1, num_words) for type_ in sorted(counts)}


def shifted_types(
    found: dict[str, float], source: dict[str, float], factor: float = 2.0
) -> dict[str, tuple[float, float]]:
    """
    The types whose share differs more than `factor` times between pseudo labels and source data. Under such a
    shift, what a student learns from soft labels can end below its teacher.
    """
    pairs = {type_: (found.get(type_, 0.0), source.get(type_, 0.0)) for type_ in {*found, *source}}
    return {type_: pair for type_, pair in sorted(pairs.items()) if max(pair) > factor * min(pair)}


def weights_hash(model: torch.nn.Module) -> str:
    """A hash of all weights of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
