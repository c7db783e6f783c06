"""What the readers of labelled files share: tag schemes, label maps, instances, errors that name a place."""

import codecs
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr
from allennlp.data.token_indexers import SingleIdTokenIndexer

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.data.tag_schemes import SCHEMES, map_labels, to_bio


class Labelled(NamedTuple):
    """A sentence of a file: where it stands, its words and, if they are known, their BIO tags."""

    place: str
    words: list[str]
    tags: Optional[list[str]]


class SentenceReader(DatasetReader):
    """
    Turns the sentences of a file into instances. A subclass says where they are (`_sentences`).

    An instance has the fields `tokens` (a `TextField` whose tokens carry their tag in `ent_type_`), `tags`
    (a `SequenceLabelField`, namespace "labels") and `metadata` (`words`, `tags`). Tags are BIO whatever the
    scheme of the file. Where no tags are known, the field and the entry `tags` are missing.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    encoding : `str`, optional (default = `"utf-8"`)
    scheme : `str`, optional (default = `"BIO"`)
        The tag scheme of the file: one of [`SCHEMES`](./tag_schemes.md#schemes).
    label_map : `Dict[str, str]`, optional (default = `None`)
        New names of entity types; "O" drops a type: `{"MISC": "O"}`.
    max_instances : `int`, optional (default = `None`)

    # Raises

    `ConfigurationError`, naming the argument or `file:line`, for a bad argument and for a file that is
    missing, empty, undecodable or malformed.
    """

    EXPECTED = "sentences"
    """What a file should have, for the message of one that has nothing."""

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        encoding: str = "utf-8",
        scheme: str = "BIO",
        label_map: Optional[dict[str, str]] = None,
        max_instances: Optional[int] = None,
    ) -> None:
        # AllenNLP shares the sentences out among processes. A reader that does so itself (`shard_iterable`)
        # cannot be told by a "pseudo_tasks" reader around it that every process needs all of them.
        super().__init__(max_instances=max_instances)
        _check_encoding(encoding)
        if scheme not in SCHEMES:
            raise ConfigurationError(
                f"scheme={scheme!r} is not one of {', '.join(SCHEMES)}. Give the scheme of the file"
            )
        _check_label_map(label_map or {})
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}
        self._encoding = encoding
        self._scheme = scheme
        self._label_map = label_map or {}

    @abstractmethod
    def _sentences(self, file_path: PathOrStr) -> Iterator[Labelled]:
        """The sentences of a file, in order."""

    def _read(self, file_path: PathOrStr) -> Iterator[Instance]:
        found = False
        for place, words, tags in self._sentences(file_path):
            with naming(place):
                instance = self.text_to_instance(words, tags, place)
            yield instance
            found = True
        if not found:
            raise ConfigurationError(f"{file_path}: no sentence found. Give {self.EXPECTED}")

    def text_to_instance(
        self, words: Sequence[str], tags: Optional[Sequence[str]] = None, place: Optional[str] = None
    ) -> Instance:
        """
        # Parameters

        words : `Sequence[str]`
        tags : `Sequence[str]`, optional (default = `None`)
            One BIO tag for each word.
        place : `str`, optional (default = `None`)
            Where the sentence is from ("file:line"), for messages.

        # Returns

        `Instance`
            See [`sentence_instance`](./sentence.md#sentence_instance), which also tells what it raises.
        """
        return sentence_instance(words, tags, place)

    def apply_token_indexers(self, instance: Instance) -> None:
        """
        Sets the token indexers of the field `tokens`.
        """
        instance["tokens"].token_indexers = self._token_indexers  # type: ignore[attr-defined]

    def _bio(self, tags: Sequence[str]) -> list[str]:
        """The tags of a sentence of the file as BIO, with new names of types."""
        return map_labels(to_bio(tags, self._scheme), self._label_map)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Errors of what the block reads become a `ConfigurationError` that says where it stands."""
    try:
        yield
    except (ValueError, RecursionError, ConfigurationError) as error:
        message = error.message if isinstance(error, ConfigurationError) else error
        raise ConfigurationError(f"{place}: {message}") from error


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ConfigurationError(
            f"encoding={encoding!r} is not known to Python. Give one such as 'utf-8' or 'latin-1'"
        ) from error


def _check_label_map(label_map: Mapping[str, Optional[str]]) -> None:
    for old, new in label_map.items():
        for name in (old, new):
            if name == "" or (name or "").startswith(("B-", "I-")):
                raise ConfigurationError(
                    f"label_map has {old!r}: {new!r}, but {name!r} is no entity type. Give types without "
                    'prefix, such as {"MISC": "O"}'
                )
