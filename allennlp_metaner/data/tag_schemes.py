"""
Tag schemes, entity types and spans, in plain Python.

Inside the package every tag is BIO: `B-x` starts an entity of type `x`, `I-x` continues it, `O` is outside.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from seqeval.metrics.sequence_labeling import get_entities

SCHEMES: Mapping[str, re.Pattern[str]] = {
    "IO": re.compile(r"O|I-\S+"),
    "IOB1": re.compile(r"O|[BI]-\S+"),
    "BIO": re.compile(r"O|[BI]-\S+"),
    "IOB2": re.compile(r"O|[BI]-\S+"),
    "IOE1": re.compile(r"O|[IE]-\S+"),
    "IOE2": re.compile(r"O|[IE]-\S+"),
    "BIOES": re.compile(r"O|[BIES]-\S+"),
    "BILOU": re.compile(r"O|[BILU]-\S+"),
}
"""The tags that each scheme allows."""

Span = tuple[str, int, int]
"""Type, first position and last position (inclusive) of an entity."""


def check_tag(tag: str, scheme: str) -> None:
    """
    Raises a `ValueError` that names `tag` if it is not a tag of `scheme`.
    """
    if not SCHEMES[scheme].fullmatch(tag):
        letters = {"IO": "I", "IOE1": "IE", "IOE2": "IE", "BIOES": "BIES", "BILOU": "BILU"}.get(scheme, "BI")
        *others, last = ["'O'", *(f"'{letter}-TYPE'" for letter in letters)]
        valid = f"{', '.join(others)} and {last}"
        raise ValueError(f"{tag!r} is not a tag of scheme {scheme}, which has {valid}")


def entity_type(tag: str) -> str | None:
    """
    The `x` of `B-x` or `I-x`; `None` for `O`.
    """
    return None if tag == "O" else tag[2:]


def closure(tags: Iterable[str]) -> list[str]:
    """
    The tags that a model of some training data needs.

    # Parameters

    tags : `Iterable[str]`
        Those that occur in the data; what is not BIO stays as it is.

    # Returns

    `list[str]`
        The same, and behind them, in alphabetical order, the `B-x` or `I-x` that they lack: entities of a
        type that has one word everywhere in training may have two elsewhere.
    """
    given = list(tags)
    types = {tag[2:] for tag in given if tag != "O" and SCHEMES["BIO"].fullmatch(tag)}
    return given + sorted({f"{letter}-{type_}" for letter in "BI" for type_ in types}.difference(given))


def to_bio(tags: Sequence[str], scheme: str) -> list[str]:
    """
    Rewrites the tags of a sentence in BIO.

    # Parameters

    tags : `Sequence[str]`
        The tags of one sentence.
    scheme : `str`
        "IO" (neighbours of one type are one entity), "IOB1" (`B-` only where an entity follows another of
        the same type), "BIO" or "IOB2", which are the same (returned as it is: an `I-` that nothing began is
        for conlleval's rules), "IOE1" (`E-` only where an entity precedes another of the same type),
        "IOE2" (`E-` ends every entity), "BIOES" (`E-` ends an entity, `S-` is one of a single word) or
        "BILOU" (`L-` and `U-` likewise).

    # Returns

    `list[str]`

    # Raises

    `ValueError`, if a tag is not one of `scheme`.
    """
    for tag in tags:
        check_tag(tag, scheme)
    if scheme in ("BIO", "IOB2"):
        return list(tags)
    if scheme in ("IOE1", "IOE2", "BIOES", "BILOU"):
        return _without_ends(tags)
    previous = ["O", *tags]
    return [
        f"B-{tag[2:]}" if tag.startswith("I-") and entity_type(tag) != entity_type(before) else tag
        for before, tag in zip(previous, tags, strict=False)
    ]


def _without_ends(tags: Sequence[str]) -> list[str]:
    bio, inside = [], None
    for tag in tags:
        begins = tag[0] in "BSU" or entity_type(tag) != inside
        bio.append(tag if tag == "O" else f"{'B' if begins else 'I'}-{tag[2:]}")
        inside = entity_type(tag) if tag[0] in "BI" else None
    return bio


def map_labels(tags: Sequence[str], label_map: Mapping[str, str | None]) -> list[str]:
    """
    Renames entity types; an entity whose new type is "O" or `None` is no entity any more.

    # Parameters

    tags : `Sequence[str]`
        BIO tags.
    label_map : `Mapping[str, Optional[str]]`
        From old type to new type. Types that it lacks stay as they are.

    # Returns

    `list[str]`
    """
    mapped = []
    for tag in tags:
        old = entity_type(tag)
        new = label_map.get(old, old) if old else None
        mapped.append("O" if new in (None, "O") else f"{tag[:2]}{new}")
    return mapped


def split_characters(words: Sequence[str], tags: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Cuts words into single characters; the characters of an entity's word continue the entity.

    # Parameters

    words : `Sequence[str]`
    tags : `Sequence[str]`
        The words' BIO tags.

    # Returns

    `tuple[list[str], list[str]]`
        The characters, and their BIO tags.
    """
    characters: list[str] = []
    character_tags: list[str] = []
    for word, tag in zip(words, tags, strict=True):
        characters.extend(word)
        inside = tag if tag == "O" else f"I-{tag[2:]}"
        character_tags.extend([tag, *[inside] * (len(word) - 1)])
    return characters, character_tags


def only_bio(tags: Sequence[str]) -> list[str]:
    """
    The tags with everything that is not BIO, such as a model's own labels for `[CLS]`, turned into `O`.
    """
    return [tag if SCHEMES["BIO"].fullmatch(tag) else "O" for tag in tags]


def spans(tags: Sequence[str]) -> list[Span]:
    """
    The entities of a sentence by the rules of conlleval: an `I-` after `O` or after another type begins an
    entity too.

    # Parameters

    tags : `Sequence[str]`
        BIO tags; whatever is not BIO counts as `O`.

    # Returns

    `list[tuple[str, int, int]]`
        Type, first and last position (inclusive), in the order of the text.
    """
    return get_entities(only_bio(tags))
