"""Sentences as JSON: what the predictor and the commands take as input, and lines of output."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from allennlp.common.checks import ConfigurationError
from allennlp.data.dataset_readers.dataset_reader import PathOrStr

from allennlp_metaner.data.lines import read_lines
from allennlp_metaner.data.raw_text import join, tokenize


class JsonSentence(NamedTuple):
    """The words of a sentence, the text they are in, and start and end of each word there."""

    words: list[str]
    text: str
    offsets: list[tuple[int, int]]


def parse_sentence(line: Any, place: str) -> JsonSentence:
    """
    # Parameters

    line : `Any`
        `{"sentence": "raw text"}`, or `{"words": ["a", "list"]}` for text that is tokenised already. Raw text
        is split as [`tokenize`](./raw_text.md#tokenize) does it; words are joined by blanks.
    place : `str`
        Where the line stands, for the message.

    # Returns

    `JsonSentence`

    # Raises

    `ConfigurationError`, if the line is neither of the two, or has no words.
    """
    fields = line if isinstance(line, dict) else {}
    sentence, words = fields.get("sentence"), fields.get("words")
    if isinstance(words, list) and words and all(isinstance(w, str) and w.strip() for w in words):
        return JsonSentence(words, *join(words))
    if words is None and isinstance(sentence, str) and sentence.strip():
        tokens = tokenize(sentence)
        offsets = [(start, end) for _, start, end in tokens]
        return JsonSentence([token for token, _, _ in tokens], sentence, offsets)
    raise ConfigurationError(
        f"{place} is {line!r}, but should be "
        '{"sentence": "raw text, not empty"} or {"words": ["not", "empty"]}'
    )


def json_line(fields: dict[str, Any]) -> str:
    """
    An object as a line of JSON, with its line end. Letters stay as they are, except lone surrogates, which
    have no form in UTF-8 and are escaped.
    """
    line = json.dumps(fields, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(fields)
    return f"{line}\n"


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
        if not line or line.isspace():
            continue
        place = f"{file_path}:{number}"
        try:
            parsed = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(
                f'{place}: {line!r} is not JSON ({error}). Give one object a line: {{"sentence": "text"}}'
            ) from error
        yield parse_sentence(parsed, f"{place}: the line")
