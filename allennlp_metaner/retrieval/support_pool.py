"""The labelled sentences that support sets are taken from, with their vectors."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.retrieval.vector_cache import METADATA, new_directory, read_metadata

_SENTENCES = "sentences.jsonl"
_VECTORS = "vectors.npy"


@dataclass(eq=False)
class SupportPool:
    """
    Labelled sentences and their vectors.

    # Parameters

    sentences : `List[List[str]]`
        The words of each sentence.
    tags : `List[List[str]]`
        The tags of each sentence, one a word.
    vectors : `np.ndarray`
        float32, shape `(num_sentences, dim)`, with L2-normalised rows.
    fingerprint : `str`
        The fingerprint of the encoder that made `vectors`.

    # Raises

    `ConfigurationError`, if the parts do not fit together.
    """

    sentences: list[list[str]]
    tags: list[list[str]]
    vectors: np.ndarray
    fingerprint: str

    def __post_init__(self) -> None:
        if not len(self.sentences) == len(self.tags) == len(self.vectors):
            raise ConfigurationError(
                f"a support pool needs tags and a vector for each sentence: {len(self.sentences)} sentences "
                f"have {len(self.tags)} tag sequences and {len(self.vectors)} vectors."
            )
        for words, tags in zip(self.sentences, self.tags, strict=True):
            if len(words) != len(tags):
                raise ConfigurationError(
                    f"{len(tags)} tags for the {len(words)} words of {' '.join(words)!r}."
                )

    def __len__(self) -> int:
        return len(self.sentences)

    def positions_of(self, words: Sequence[str]) -> list[int]:
        """The positions of all sentences with exactly these words, in ascending order."""
        return self._positions.get(tuple(words), [])

    @cached_property
    def _positions(self) -> dict[tuple[str, ...], list[int]]:
        positions: dict[tuple[str, ...], list[int]] = {}
        for position, words in enumerate(self.sentences):
            positions.setdefault(tuple(words), []).append(position)
        return positions

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the pool to `directory`, which is replaced if it exists, and is never there incomplete."""
        target = Path(directory)
        with new_directory(target, fingerprint=self.fingerprint) as scratch:
            with (scratch / _SENTENCES).open("w", encoding="utf-8") as file:
                for words, tags in zip(self.sentences, self.tags, strict=True):
                    file.write(json.dumps({"words": words, "tags": tags}) + "\n")
            np.save(scratch / _VECTORS, self.vectors, allow_pickle=False)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "SupportPool":
        """
        Read a saved pool into memory; `directory` is not needed afterwards.

        # Raises

        `ConfigurationError`, if the directory is missing, incomplete or damaged.
        """
        source = Path(directory)
        try:
            fingerprint = read_metadata(source)["fingerprint"]
            with (source / _SENTENCES).open(encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            vectors = np.load(source / _VECTORS, allow_pickle=False)
            sentences, tags = ([line[key] for line in lines] for key in ("words", "tags"))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"the support pool in {source} is missing, incomplete or damaged ({error}): restore the "
                "directory, or delete it and make the pool again."
            ) from error
        return cls(sentences, tags, vectors, fingerprint)

    @staticmethod
    def exists(directory: str | os.PathLike[str]) -> bool:
        """Whether a complete pool was saved to `directory`."""
        return (Path(directory) / METADATA).is_file()
