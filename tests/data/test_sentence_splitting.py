"""Sentences of documents: offsets, full stops of the world, and time."""

# Look-alikes of ASCII are what is tested here.
# ruff: noqa: RUF001

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allennlp_metaner.data.sentence_splitting import LONGEST, split_sentences


def pieces(text: str, **arguments: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, **arguments)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["El Ayto. de Madrid llegó.", "¿Qué?", "¡No!"],
        ["Dr. J. Smith Jr. of Acme Corp. left.", "He won."],
        ["Él vive en EE.UU. desde 1990.", "Bien."],
        ["مرحبا بالعالم؟", "نعم."],
        ["हिन्दी वाक्य।", "दूसरा।"],
        ["王小明访问了北京。", "他很高兴。"],
        ["Անան ապրում է Երևանում։", "Որտե՞ղ։"],
        ["አና በአዲስ አበባ ትኖራለች።", "ደስተኛ ናት፧"],
        ["အန်နာသည် ရန်ကုန်တွင် နေသည်။", "သူ ပျော်သည်။"],
        ["អាណារស់នៅក្នុងភ្នំពេញ។", "«នាងសប្បាយ។»", "ចប់៕"],
        ["ཨ་ན་ལྷ་ས་ལ་སྡོད།", "སྐྱིད་པོ་འདུག༎"],
        ["ანა ცხოვრობს თბილისში.", "ის ბედნიერია!"],
        ["અન્ના અમદાવાદમાં રહે છે.", "તે ખુશ છે."],
        ["Vive en Bogota\u0301.", "Ella ríe."],
        ["Yo 🙂 comí.", "Fi\u0301n 👩‍👩‍👧."],
    ],
)
def test_full_stops_of_the_world(sentences: list[str]) -> None:
    for blank in (" ", "\t ", "\n", "\r\n"):
        assert pieces(blank.join(sentences)) == sentences


def test_blank_lines_end_sentences_and_others_do_not() -> None:
    assert pieces("A title\n\nA wrapped\nsentence\r\nhere\r\n \r\nand\r\r\nmore") == [
        "A title",
        "A wrapped\nsentence\r\nhere",
        "and",
        "more",
    ]
    assert pieces("Chinese 北京。上海。") == ["Chinese 北京。", "上海。"]


def test_modes() -> None:
    text = " One. Two.\r\nThree\u2028 Four \n\n"
    assert pieces(text, mode="lines") == ["One. Two.", "Three", "Four"]
    assert pieces(text, mode="whole") == ["One. Two.\r\nThree\u2028 Four"]


def test_abbreviations_of_a_language() -> None:
    text = "Vgl. Bahn AG. Ende."
    assert pieces(text, language="de") == ["Vgl. Bahn AG.", "Ende."]


# Scripts, digits, blanks, punctuation, emoji, combining marks, direction marks, surrogates and line ends.
TEXT = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            list(
                "aB1.!?।؟«»\"'()… \t\n\r\x1c\x85\u2028\u2029\u200b\u200d\u200f\u0301\ufeff\ud800🙂\U0001d49c"
            )
        ),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from(["split", "lines", "whole"]))
def test_every_character_that_is_not_blank_is_in_exactly_one_sentence(text: str, mode: str) -> None:
    end = 0
    for start, next_end in split_sentences(text, mode=mode):
        assert end <= start < next_end
        assert not text[end:start].strip()
        assert not text[start].isspace() and not text[next_end - 1].isspace()
        end = next_end
    assert not text[end:].strip()


def test_a_long_text_without_full_stops_is_cut_at_blanks() -> None:
    text = "word " * 10_000
    lengths = [end - start for start, end in split_sentences(text)]
    assert max(lengths) <= LONGEST
    assert all(piece.startswith("word") and piece.endswith("word") for piece in pieces(text))
    assert pieces("x" * (2 * LONGEST + 1)) == ["x" * LONGEST, "x" * LONGEST, "x"]


def test_a_sentence_that_stands_across_the_limit_stays_whole() -> None:
    sentence = "Anna visited the city of Madrid on Monday."
    text = f"{sentence} " * (LONGEST // len(sentence) * 3)
    assert set(pieces(text)) == {sentence}


def processor_seconds(text: str) -> float:
    begin = time.process_time()
    split_sentences(text)
    return time.process_time() - begin


@pytest.mark.parametrize("unit", ["«", "\n ", "a ", "c'", "A. ", "(", "\ud800"])
def test_time_is_linear(unit: str) -> None:
    short = min(processor_seconds(unit * 10_000) for _ in range(2))
    # Eight times as long; the square would be 64.
    assert processor_seconds(unit * 80_000) < 24 * short + 0.05
