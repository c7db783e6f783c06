"""The engine: documents in, documents with names out, in order, in batches of sentences of like length."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional, Union

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.data.sentence_splitting import SENTENCE_MODES
from allennlp_metaner.tagging.backends import Backend, Tagged
from allennlp_metaner.tagging.documents import Source, Text, Words, cut, source
from allennlp_metaner.tagging.results import Document, Sentence

# So many batches of sentences are read ahead, so that a batch can be of sentences of like length.
BATCHES_AHEAD = 8
# Long sentences are fewer in a batch: padded, it has at most so many words for each sentence of `batch_size`.
WORDS_PER_SENTENCE = 100


@dataclass
class _Open:
    """A document of which some sentences may not be labelled yet."""

    source: Source
    name: str
    words: list[Words]
    tagged: dict[int, Tagged] = field(default_factory=dict)
    error: Optional[str] = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.tagged) == len(self.words)


_Item = tuple[_Open, int]
"""A document and the number of one of its sentences."""


class Engine:
    """
    Finds the names of documents. Several threads may call it at the same time.

    # Parameters

    backend : `Backend`
    threshold : `float`, optional (default = `0.0`)
        Entities with less confidence are left out.
    language : `str`, optional (default = `"xx"`)
    sentences : `str`, optional (default = `"split"`)
        How documents are cut, see [`split_sentences`](../data/sentence_splitting.md#split_sentences), which
        tells what `language` is for, too.

    # Raises

    `ConfigurationError`, if an argument is out of range.
    """

    def __init__(
        self, backend: Backend, threshold: float = 0.0, language: str = "xx", sentences: str = "split"
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigurationError(f"threshold={threshold} must be a confidence between 0 and 1")
        if sentences not in SENTENCE_MODES:
            raise ConfigurationError(f"sentences={sentences!r} must be one of {', '.join(SENTENCE_MODES)}")
        self._backend = backend
        self._threshold = threshold
        self._language = language
        self._mode = sentences

    def pipe(
        self, texts: Iterable[Union[Text, Source]], batch_size: int = 32, fail_fast: bool = False
    ) -> Iterator[Document]:
        """
        # Parameters

        texts : `Iterable[Union[str, Sequence[str], Source]]`
            Each a raw text, the words of a sentence, or a `Source`. They are read as they are needed.
        batch_size : `int`, optional (default = `32`)
            The most sentences that go through the model together.
        fail_fast : `bool`, optional (default = `False`)
            Whether a document that cannot be labelled raises its error. If false, its result carries it as
            `error`, and the others are labelled.

        # Returns

        `Iterator[Document]`
            A result for each text, in order.

        # Raises

        `ConfigurationError`, if `batch_size` is not positive, or, with `fail_fast`, a document cannot be
        labelled.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size={batch_size} must be positive")
        return self._pipe(texts, batch_size, fail_fast)

    def _pipe(
        self, texts: Iterable[Union[Text, Source]], batch_size: int, fail_fast: bool
    ) -> Iterator[Document]:
        waiting: deque[_Open] = deque()
        items: list[_Item] = []
        for number, text in enumerate(texts, start=1):
            document = self._open(text, number, fail_fast)
            waiting.append(document)
            items += [(document, index) for index in range(len(document.words))]
            if len(items) >= BATCHES_AHEAD * batch_size:
                self._tag(items, batch_size, fail_fast)
                items = []
            while waiting and waiting[0].is_done:
                yield self._close(waiting.popleft())
        self._tag(items, batch_size, fail_fast)
        for document in waiting:
            yield self._close(document)

    def _open(self, text: Union[Text, Source], number: int, fail_fast: bool) -> _Open:
        name = (text.name if isinstance(text, Source) else None) or f"document {number}"
        try:
            found = source(text)
            if found.error is not None:
                raise ConfigurationError(found.error)
            words = found.sentences
            if words is None:
                words = cut(found.text, self._language, self._mode)
            return _Open(found, name, words)
        except ConfigurationError as error:
            message = f"{name}: {error}"
            if fail_fast:
                raise ConfigurationError(message) from error
            # The text may be of any type.
            known = text if isinstance(text, Source) else Source("")
            return _Open(known, name, [], error=message)

    def _tag(self, items: Sequence[_Item], batch_size: int, fail_fast: bool) -> None:
        for batch in _batches(items, batch_size):
            try:
                self._tag_together(batch)
            except Exception as error:
                # One sentence may be the cause; the others are labelled without it.
                for item in batch:
                    own_error = error if len(batch) == 1 else self._error_alone(item)
                    if own_error is not None:
                        _fail(item, own_error, fail_fast)

    def _tag_together(self, batch: Sequence[_Item]) -> None:
        tagged = self._backend.tag([document.words[index].words for document, index in batch])
        for (document, index), found in zip(batch, tagged, strict=True):
            document.tagged[index] = found

    def _error_alone(self, item: _Item) -> Optional[Exception]:
        try:
            self._tag_together([item])
        except Exception as error:
            return error
        return None

    def _close(self, document: _Open) -> Document:
        text, meta = document.source.text, document.source.meta
        if document.error is not None:
            return Document(text, [], document.name, meta, document.error)
        sentences = [
            self._sentence(words, document.tagged[index]) for index, words in enumerate(document.words)
        ]
        return Document(text, sentences, document.name, meta)

    def _sentence(self, words: Words, found: Tagged) -> Sentence:
        sentence = Sentence(
            words.start, words.end, words.words, words.offsets, found.tags, found.confidences, found.neighbors
        )
        return sentence.above(self._threshold)


def _fail(item: _Item, error: Exception, fail_fast: bool) -> None:
    document, index = item
    words = " ".join(document.words[index].words)
    message = (
        f"{document.name}: sentence {index + 1}, {words[:80]!r}, cannot be labelled "
        f"({type(error).__name__}: {error})"
    )
    if fail_fast:
        raise ConfigurationError(message) from error
    document.error = document.error or message


def _batches(items: Sequence[_Item], batch_size: int) -> Iterator[list[_Item]]:
    """The sentences in batches, from short to long ones."""
    batch: list[_Item] = []
    for document, index in sorted(items, key=lambda item: len(item[0].words[item[1]].words)):
        longest = len(document.words[index].words)
        full = len(batch) == batch_size or (len(batch) + 1) * longest > WORDS_PER_SENTENCE * batch_size
        if batch and full:
            yield batch
            batch = []
        batch.append((document, index))
    if batch:
        yield batch
