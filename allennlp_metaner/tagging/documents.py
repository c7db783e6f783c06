"""What goes into the engine: a document's text, cut into sentences and words with their offsets in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.data.characters import without_surrogates
from allennlp_metaner.data.raw_text import join, tokenize
from allennlp_metaner.data.sentence_splitting import split_sentences

Text = Union[str, Sequence[str]]
"""A document: raw text, or the words of one sentence."""


@dataclass(frozen=True)
class Words:
    """
    The words of a sentence.

    # Parameters

    words : `list[str]`
    offsets : `list[tuple[int, int]]`
        Start and end of each word in the document's text.
    """

    words: list[str]
    offsets: list[tuple[int, int]]

    @property
    def start(self) -> int:
        """Where the sentence starts in the document's text."""
        return self.offsets[0][0]

    @property
    def end(self) -> int:
        """Where the sentence ends in the document's text."""
        return self.offsets[-1][1]


@dataclass
class Source:
    """
    A document to look for names in.

    # Parameters

    text : `str`
    sentences : `list[Words]`, optional (default = `None`)
        The sentences of a document that is tokenized already. If `None`, the engine cuts the text.
    name : `str`, optional (default = `None`)
        What messages call the document, such as its file. If `None`, its number.
    meta : `dict[str, Any]`, optional (default = `{}`)
        Whatever belongs to the document and should come back with the result.
    error : `str`, optional (default = `None`)
        Why the document could not be read.
    """

    text: str
    sentences: Optional[list[Words]] = None
    name: Optional[str] = None
    meta: dict[str, Any] = field(default_factory=dict)
    error: Optional[str] = None


def cut(text: str, language: str = "xx", mode: str = "split") -> list[Words]:
    """
    The sentences of a text, as [`split_sentences`](../data/sentence_splitting.md#split_sentences) finds them,
    cut into words by [`tokenize`](../data/raw_text.md#tokenize). Every character that is not blank (nor a
    zero-width space) is in exactly one word.
    """
    sentences = []
    for start, end in split_sentences(text, language, mode):
        tokens = tokenize(text[start:end])
        if tokens:
            words = [word for word, _, _ in tokens]
            sentences.append(Words(words, [(start + first, start + last) for _, first, last in tokens]))
    return sentences


def of_sentences(sentences: Sequence[Sequence[str]], name: Optional[str] = None) -> Source:
    """
    A document of sentences that are tokenized already. Its text joins words by blanks, and sentences by line
    ends.

    # Raises

    `ConfigurationError`, if a word is not a string.
    """
    lines: list[str] = []
    parts: list[Words] = []
    start = 0
    for words in sentences:
        bad = [word for word in words if not isinstance(word, str)]
        if bad:
            raise ConfigurationError(f"{bad[0]!r} in {list(words)!r} is not a word. Give words as strings")
        line, offsets = join(words)
        if words:
            parts.append(
                Words(
                    [without_surrogates(word) for word in words],
                    [(start + first, start + last) for first, last in offsets],
                )
            )
        lines.append(line)
        start += len(line) + 1
    return Source("\n".join(lines), parts, name)


def source(text: Union[Text, Source]) -> Source:
    """
    What a caller of `predict` or `pipe` gave, as a `Source`.

    # Raises

    `ConfigurationError`, if it is neither a text nor the words of a sentence.
    """
    if isinstance(text, Source):
        return text
    if isinstance(text, str):
        return Source(text)
    if isinstance(text, Sequence) and not isinstance(text, bytes):
        return of_sentences([text])
    raise ConfigurationError(
        f"a document is {text!r}, but should be a text ('Anna visited Paris.') or the words of a sentence "
        "(['Anna', 'visited', 'Paris', '.'])"
    )
