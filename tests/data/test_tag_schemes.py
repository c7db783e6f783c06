"""Tag schemes, label maps, characters and spans."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allennlp_metaner.data.tag_schemes import closure, map_labels, only_bio, spans, split_characters, to_bio

BIO_TAGS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=12)


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("IO", "I-PER I-PER O I-PER", "B-PER I-PER O B-PER"),
        ("IO", "I-PER I-LOC I-LOC", "B-PER B-LOC I-LOC"),
        ("IOB1", "I-PER I-PER O I-PER", "B-PER I-PER O B-PER"),
        ("IOB1", "I-PER B-PER I-PER", "B-PER B-PER I-PER"),
        ("IOB1", "I-PER I-LOC", "B-PER B-LOC"),
        ("IOB1", "B-PER I-PER", "B-PER I-PER"),
        ("IOB2", "B-PER I-PER", "B-PER I-PER"),
        ("IOE1", "I-PER E-PER I-PER O I-LOC", "B-PER I-PER B-PER O B-LOC"),
        ("IOE2", "I-PER E-PER E-PER O E-LOC", "B-PER I-PER B-PER O B-LOC"),
        ("IOE2", "I-PER I-LOC E-LOC", "B-PER B-LOC I-LOC"),
        ("BIO", "B-PER I-PER B-PER O", "B-PER I-PER B-PER O"),
        ("BIO", "O I-PER I-LOC", "O I-PER I-LOC"),
        ("BIO", "B-geo-loc I-geo-loc", "B-geo-loc I-geo-loc"),
        ("BIO", "", ""),
    ],
)
def test_to_bio(scheme: str, tags: str, expected: str) -> None:
    assert to_bio(tags.split(), scheme) == expected.split()


@pytest.mark.parametrize(
    ("scheme", "tag"),
    [
        ("IO", "B-PER"),
        ("IOB1", "S-PER"),
        ("IOE2", "B-PER"),
        ("BIO", "I-"),
        ("BIO", "B"),
        ("BIO", "o"),
        ("BIO", ""),
        ("BIO", "B-A B"),
    ],
)
def test_to_bio_names_bad_tag(scheme: str, tag: str) -> None:
    with pytest.raises(ValueError, match="is not a tag of scheme " + scheme) as error:
        to_bio(["O", tag], scheme)
    assert repr(tag) in str(error.value)


def as_iob1(tags: list[str]) -> list[str]:
    """BIO -> IOB1, for well-formed tags: `B-` stays only after an entity of the same type."""
    previous = ["O", *tags]
    return [
        tag if tag == "O" or (tag[0] == "B" and before[1:] == tag[1:]) else f"I{tag[1:]}"
        for before, tag in zip(previous, tags, strict=False)
    ]


@settings(deadline=None)
@given(BIO_TAGS)
def test_iob1_round_trip(tags: list[str]) -> None:
    bio = to_bio(tags, "IOB1")
    assert to_bio(as_iob1(bio), "IOB1") == bio
    assert spans(bio) == spans(tags)


@settings(deadline=None)
@given(BIO_TAGS)
def test_io_spans_are_runs(tags: list[str]) -> None:
    types = [tag[2:] for tag in tags]
    bio = to_bio(["O" if tag == "O" else f"I-{tag[2:]}" for tag in tags], "IO")
    starts = [i for i, kind in enumerate(types) if kind and (i == 0 or types[i - 1] != kind)]
    assert [start for _, start, _ in spans(bio)] == starts
    assert [tag[2:] for tag in bio] == types


def test_map_labels() -> None:
    tags = ["B-PER", "I-PER", "B-MISC", "I-MISC", "B-GPE", "B-LOC", "O"]
    assert map_labels(tags, {"MISC": "O", "GPE": "LOC"}) == [
        "B-PER",
        "I-PER",
        "O",
        "O",
        "B-LOC",
        "B-LOC",
        "O",
    ]
    assert map_labels(tags, {"MISC": None}) == ["B-PER", "I-PER", "O", "O", "B-GPE", "B-LOC", "O"]
    assert map_labels(tags, {}) == tags


def test_split_characters() -> None:
    words, tags = ["王明", "在", "北京", "站"], ["B-PER", "O", "B-LOC", "I-LOC"]
    assert split_characters(words, tags) == (
        list("王明在北京站"),
        ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "I-LOC"],
    )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("O I-PER I-PER", [("PER", 1, 2)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("B-PER X I-PER [CLS]", [("PER", 0, 0), ("PER", 2, 2)]),
        ("S-PER B I", []),
        ("", []),
    ],
)
def test_spans(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == expected


def test_only_bio() -> None:
    assert only_bio(["B-PER", "[SEP]", "X", "I-PER", "O", "E-PER"]) == ["B-PER", "O", "O", "I-PER", "O", "O"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER B-LOC I-PER", "O B-PER B-LOC I-PER I-LOC"),
        ("I-b I-a O", "I-b I-a O B-a B-b"),
        ("[PAD] X O [CLS]", "[PAD] X O [CLS]"),
        ("O B-X-Y", "O B-X-Y I-X-Y"),
        ("", ""),
    ],
)
def test_closure(tags: str, expected: str) -> None:
    assert closure(tags.split()) == expected.split()
    assert closure(expected.split()) == expected.split()
