"""Sentences as JSON: what the predictor and the commands take as input, and lines of output."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data.dataset_readers.dataset_reader import PathOrStr

from allennlp_metaner.data.characters import encodable, without_surrogates
from allennlp_metaner.data.lines import read_lines
from allennlp_metaner.data.raw_text import join, tokenize

LONGEST_SHOWN = 200
TEXT_FIELDS = ("text", "sentence")
WORD_FIELDS = ("words", "tokens")
# The one that counts where a line has several of them.
_BY_RANK = ("words", "sentence", "tokens", "text")
DEEPEST = 100
"""So many lists and objects inside of each other are read. Python cannot write all that it can read."""
_TOO_DEEP = f"more than {DEEPEST} lists and objects are inside of each other"


class JsonSentence(NamedTuple):
    """The words of a sentence, the text they are in, and start and end of each word there."""

    words: list[str]
    text: str
    offsets: list[tuple[int, int]]


def parse_json(text: str) -> Any:
    """
    The value of JSON, such that it can be written as JSON again: numbers that are not finite, which Python
    reads (`NaN`, `1e999`), become `None`.

    # Raises

    `ValueError`, if the text is not JSON, or nested deeper than `DEEPEST`.
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if text.count("[") + text.count("{") > DEEPEST and not _is_shallow(value):
        raise ValueError(_TOO_DEEP)
    return value


def _finite(number: str) -> Optional[float]:
    value = float(number)
    return value if math.isfinite(value) else None


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, (dict, list))]
        if not level:
            return True
    return False


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def load_json(line: str, place: str) -> Any:
    """
    The value of a line of JSON, also of one that begins with a byte order mark.

    # Raises

    `ConfigurationError`, naming `place`, if the line is not JSON.
    """
    try:
        return parse_json(line.removeprefix("\ufeff"))
    except ValueError as error:
        raise ConfigurationError(
            f"{place} is {shortened(line.strip())}, which is not JSON ({error}). Give one object a line: "
            '{"sentence": "text"}'
        ) from error


def shortened(value: Any) -> str:
    """A value as messages show it."""
    shown = repr(value)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."


def check_sentence(line: Any, place: str) -> None:
    """
    # Parameters

    line : `Any`
        See [`parse_sentence`](#parse_sentence).
    place : `str`
        Where the line stands, for the message.

    # Raises

    `ConfigurationError`, if the line has neither a raw sentence nor words.
    """
    field, value = _given(line if isinstance(line, dict) else {})
    if field in WORD_FIELDS:
        is_sentence = isinstance(value, list) and all(isinstance(word, str) for word in value)
    else:
        is_sentence = isinstance(value, str)
    if not is_sentence:
        raise ConfigurationError(
            f"{place} is {shortened(line)}, but should be "
            '{"sentence": "raw text"} or {"words": ["a", "list"]}'
        )


def _given(fields: dict[str, Any]) -> tuple[str, Any]:
    """Name and value of the field that has the sentence; no name, if there is none."""
    return next(((name, fields[name]) for name in _BY_RANK if fields.get(name) is not None), ("", None))


def parse_sentence(line: Any, place: str) -> JsonSentence:
    """
    # Parameters

    line : `Any`
        `{"sentence": "raw text"}`, or `{"words": ["a", "list"]}` for text that is tokenised already. Raw text
        is split as [`tokenize`](./raw_text.md#tokenize) does it; words are joined by blanks. The fields may
        also be called "text" and "tokens".
    place : `str`
        Where the line stands, for the message.

    # Returns

    `JsonSentence`
        The text is what was given. In words, lone surrogates become U+FFFD. There are none if the text is
        blank.

    # Raises

    `ConfigurationError`, if the line has neither of the two.
    """
    check_sentence(line, place)
    field, value = _given(line)
    if field in WORD_FIELDS:
        return JsonSentence(list(map(without_surrogates, value)), *join(value))
    tokens = tokenize(value)
    offsets = [(start, end) for _, start, end in tokens]
    return JsonSentence([token for token, _, _ in tokens], value, offsets)


def json_line(fields: dict[str, Any]) -> str:
    """
    An object as a line of JSON, with its line end. Letters stay as they are, except lone surrogates, which
    have no form in UTF-8 and are escaped.
    """
    return encodable(json.dumps(fields, ensure_ascii=False), is_json=True) + "\n"


def read_sentences(file_path: PathOrStr) -> Iterator[JsonSentence]:
    """
    # Parameters

    file_path : `PathOrStr`
        A file in UTF-8 with a sentence a line, see [`parse_sentence`](#parse_sentence). Blank lines are
        skipped.

    # Returns

    `Iterator[JsonSentence]`

    # Raises

    `ConfigurationError`, if the file cannot be read, or a line is no sentence.
    """
    for number, line in enumerate(read_lines(file_path, "utf-8"), start=1):
        if line and not line.isspace():
            place = f"{file_path}:{number}: the line"
            yield parse_sentence(load_json(line, place), place)
