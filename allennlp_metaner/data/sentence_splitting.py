"""Sentences of a document, with exact offsets, in any language."""

import re
from collections.abc import Iterator

from sentencex import get_sentence_boundaries

from allennlp_metaner.data.characters import without_surrogates

SENTENCE_MODES = ("split", "lines", "whole")
"""How documents are cut: into sentences, at line breaks, or not at all."""

LONGEST = 10_000
"""
The most characters that are searched for sentences at once, and so the longest sentence. The time that the
splitter takes can grow with the square of the length, for example for a row of opening quotes.
"""

PARAGRAPH_END = re.compile(r"(?:\r\n|\n|\r(?!\n))[^\S\r\n\u2029]*(?:\r\n|\n|\r(?!\n))|\u2029")
# Of Khmer and Tibetan, which the library does not know.
FULL_STOP = re.compile("[\u17d4\u17d5\u0f0d-\u0f11]+[\"'\u2019\u201d\u00bb)\\]]*\\s*")
LINE_END = re.compile(r"\r\n|[\n\r\u2028\u2029]")
NO_BLANK = re.compile(r"\S")
LAST_BLANK = re.compile(r"\s(?=\S*$)")


def split_sentences(text: str, language: str = "xx", mode: str = "split") -> list[tuple[int, int]]:
    """
    Cuts a document into sentences, in time linear in its length.

    Blank lines always end a sentence. Inside of a paragraph, the rules are those of the library
    [sentencex](https://github.com/wikimedia/sentencex), which knows the full stops of many scripts and the
    abbreviations of many languages, with the full stops of Khmer and Tibetan; but `.` ends no sentence if a
    lower-case letter follows, or no blank does.

    # Parameters

    text : `str`
    language : `str`, optional (default = `"xx"`)
        The code of the text's language, for its abbreviations: "es", "nl". With a code that the library does
        not know, such as "xx", it uses those of English.
    mode : `str`, optional (default = `"split"`)
        "split"; "lines": each line is a sentence; "whole": the text is one sentence, however long.

    # Returns

    `list[tuple[int, int]]`
        Start and end of each sentence, in order. A sentence neither begins nor ends with a blank, and
        every character that is not blank is in exactly one.
    """
    # Lone surrogates, which JSON can carry, have no UTF-8 form, so the library cannot read them.
    text = without_surrogates(text)
    if mode == "whole":
        found: Iterator[tuple[int, int]] = iter([(0, len(text))])
    elif mode == "lines":
        found = _between(LINE_END, text)
    else:
        found = (
            sentence
            for start, end in _between(PARAGRAPH_END, text)
            for sentence in _of_paragraph(text, start, end, language)
        )
    return [trimmed for start, end in found if (trimmed := _trimmed(text, start, end)) is not None]


def _between(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in pattern.finditer(text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    if not piece or piece.isspace():
        return None
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _of_paragraph(text: str, start: int, end: int, language: str) -> Iterator[tuple[int, int]]:
    while end - start > LONGEST:
        piece = text[start : start + LONGEST]
        ends = _ends(piece, language)[:-1]
        if not ends:
            # No sentence in sight: cut at the last blank, or, where there is none, anywhere.
            blank = LAST_BLANK.search(piece)
            ends = [blank.start() if blank and blank.start() > 0 else LONGEST]
        yield from _spans(start, ends)
        start += ends[-1]
    yield from _spans(start, _ends(text[start:end], language))


def _spans(start: int, ends: list[int]) -> Iterator[tuple[int, int]]:
    for first, last in zip([0, *ends], ends, strict=False):
        yield start + first, start + last


def _ends(piece: str, language: str) -> list[int]:
    """The ends of the sentences of a piece of text; the last one is the end of the piece."""
    ends = {boundary["end_index"] for boundary in get_sentence_boundaries(language, piece)}
    ends.update(match.end() for match in FULL_STOP.finditer(piece))
    return [*(end for end in sorted(ends) if 0 < end < len(piece) and _is_end(piece, end)), len(piece)]


def _is_end(piece: str, end: int) -> bool:
    before = piece[max(0, end - 20) : end].rstrip()
    if not before.endswith("."):
        return True
    if not piece[end - 1].isspace():
        return False
    following = NO_BLANK.search(piece, end)
    # Georgian letters are lower case, but no sentence begins with others: they have no title case.
    return following is None or following.group() == following.group().title()
