"""Texts and words of many scripts, with their places in the document."""

import pytest
from allennlp.common.checks import ConfigurationError
from hypothesis import given, settings

from allennlp_metaner.tagging.documents import Source, Words, cut, of_sentences, source
from tests.data.test_sentence_splitting import TEXT


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_every_character_that_is_not_blank_is_in_exactly_one_word(text: str) -> None:
    end = 0
    for sentence in cut(text):
        assert (sentence.start, sentence.end) == (sentence.offsets[0][0], sentence.offsets[-1][1])
        for word, (start, next_end) in zip(sentence.words, sentence.offsets, strict=True):
            assert end <= start < next_end
            assert not text[end:start].replace("\u200b", "").strip()
            # U+FFFD stands for what has no form in UTF-8, and is as long.
            assert word == text[start:next_end].encode("utf-16", "replace").decode("utf-16") or any(
                "\ud800" <= character <= "\udfff" for character in text[start:next_end]
            )
            assert len(word) == next_end - start
            end = next_end
    assert not text[end:].replace("\u200b", "").strip()


def test_words_are_joined_to_a_text() -> None:
    found = of_sentences([["Anna", "left", "."], [], ["Peter\ud800"]], name="file")
    assert found.text == "Anna left .\n\nPeter\ud800"
    assert found.name == "file"
    assert found.sentences is not None
    assert [(sentence.start, sentence.end) for sentence in found.sentences] == [(0, 11), (13, 19)]
    assert [sentence.words for sentence in found.sentences] == [["Anna", "left", "."], ["Peter\ufffd"]]
    assert found.text[slice(*found.sentences[0].offsets[1])] == "left"


def test_sources() -> None:
    given = Source("text", meta={"id": 1})
    assert source(given) is given
    assert source("a b").sentences is None
    assert source(["a", "b"]).text == "a b"
    assert source([]).sentences == []
    assert source(["a", "", " "]).sentences == [Words(["a", "", " "], [(0, 1), (2, 2), (3, 4)])]


@pytest.mark.parametrize("text", [None, 1, b"Anna", {"text": "a"}, ["a", 1], [["a"]]])
def test_what_is_no_document(text: object) -> None:
    with pytest.raises(ConfigurationError, match=r"should be a text|is not a word"):
        source(text)  # type: ignore[arg-type]
