"""Places in documents of any script: `text[start:end]` is the entity's text, and no character is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from allennlp_metaner.tagging.documents import cut
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.results import Document
from tests.tagging.conftest import CapitalsBackend

# Latin with combining marks, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, Chinese, Japanese, emoji of
# one and of several code points, a flag, letters beyond the first plane.
WORDS = [
    "Ana",
    "A\u0301lvarez",
    "\u00c9lise",
    "\u0391\u03b8\u03ae\u03bd\u03b1",
    "\u041c\u043e\u0441\u043a\u0432\u0430",
    "\u05d9\u05e8\u05d5\u05e9\u05dc\u05d9\u05dd",
    "\u0627\u0644\u0642\u0627\u0647\u0631\u0629",
    "\u0926\u093f\u0932\u094d\u0932\u0940",
    "\u0e01\u0e23\u0e38\u0e07\u0e40\u0e17\u0e1e",
    "\u5317\u4eac",
    "\u6771\u4eac\u30bf\u30ef\u30fc",
    "\U0001f600",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "\U00010400\U00010428",
    "L'Hospitalet",
    "x",
]
GAPS = ["", " ", "\n", "\r\n", "\r\n\r\n", "\t", "\u00a0", "\u3000", ". ", "\u3002", " \u200f", "! "]
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=20).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


def is_blank(character: str) -> bool:
    return character.isspace() or character == "\u200b"


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_places(text: str) -> None:
    (document,) = Engine(CapitalsBackend()).pipe([text])
    assert document.error is None and document.text == text
    assert [entity.text for entity in document.entities] == [
        text[entity.start : entity.end] for entity in document.entities
    ]
    words = [place for sentence in document.sentences for place in sentence.offsets]
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    for entity in document.entities:
        assert entity.start in starts and entity.end in ends
        assert entity.text.strip() == entity.text != ""
    covered = [position for start, end in words for position in range(start, end)]
    assert len(set(covered)) == len(covered)
    assert all(is_blank(text[position]) for position in set(range(len(text))) - set(covered))
    # What is kept on disk while a run goes on is the same document.
    assert Document.from_state(document.state()) == document


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_places_do_not_depend_on_what_stands_before(first: str, second: str) -> None:
    """A blank line parts sentences, so what stands after it is cut as it is alone."""
    between = "\r\n\r\n"
    shift = len(first) + len(between)
    alone = [[(start + shift, end + shift) for start, end in words.offsets] for words in cut(second)]
    together = [words.offsets for words in cut(first + between + second) if words.start >= shift]
    assert together == alone
