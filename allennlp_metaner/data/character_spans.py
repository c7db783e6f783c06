"""Entities given as spans of characters, as annotation tools export them, as tags of words."""

from collections.abc import Sequence
from typing import NamedTuple

MISALIGNED = ("refuse", "snap")
"""What can be done with a span that begins or ends inside of a word."""


class CharacterSpan(NamedTuple):
    """An entity in the characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int
    label: str


def tags_of_spans(
    text: str,
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[CharacterSpan],
    misaligned: str = "refuse",
) -> list[str]:
    """
    # Parameters

    text : `str`
    offsets : `Sequence[tuple[int, int]]`
        Start and end of each word in `text`, in order.
    spans : `Sequence[CharacterSpan]`
    misaligned : `str`, optional (default = `"refuse"`)
        "refuse" raises an error for a span that begins or ends inside of a word, "snap" gives it the whole
        word.

    # Returns

    `list[str]`
        The BIO tag of each word.

    # Raises

    `ValueError`, which names the span, if one fits no words, or shares a word with another one.
    """
    tags = ["O"] * len(offsets)
    for start, end, label in sorted(spans):
        inside = [n for n, (first, last) in enumerate(offsets) if first < end and last > start]
        place = f"the span {start}-{end} ({text[start:end]!r}, {label})"
        if not inside or not 0 <= start < end <= len(text):
            raise ValueError(f"{place} has no words inside. Correct it")
        words = offsets[inside[0]][0], offsets[inside[-1]][1]
        if misaligned == "refuse" and words != (start, end):
            raise ValueError(
                f"{place} does not begin and end with the words {text[slice(*words)]!r}. Correct it, or give "
                "misaligned = 'snap'"
            )
        if any(tags[n] != "O" for n in inside):
            raise ValueError(f"{place} shares a word with another span. Leave one of them out")
        tags[inside[0] : inside[-1] + 1] = [f"B-{label}", *[f"I-{label}"] * (len(inside) - 1)]
    return tags


def from_utf16(text: str, start: int, end: int) -> tuple[int, int]:
    """
    A place in characters that was counted in units of UTF-16, as browsers do, where most emoji are two.
    """
    units = text.encode("utf-16-le", "surrogatepass")
    first, last = (
        len(units[: 2 * place].decode("utf-16-le", "surrogatepass")) if place >= 0 else place
        for place in (start, end)
    )
    return first, last
