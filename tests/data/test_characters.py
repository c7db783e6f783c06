"""Characters that not everything can take."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allennlp_metaner.data.characters import LONGEST_WORD, encodable, for_tokenizer, without_surrogates

TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))


def test_surrogates() -> None:
    assert without_surrogates("a\ud800b🙂\udfff") == "a\ufffdb🙂\ufffd"


def test_words_for_tokenizers() -> None:
    assert for_tokenizer("Málaga\udfff") == "Málaga\ufffd"
    assert for_tokenizer("é" * (LONGEST_WORD + 1)) == "é" * LONGEST_WORD


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "utf-16"])
@given(text=TEXT)
def test_json_loses_nothing(encoding: str, text: str) -> None:
    written = encodable(json.dumps([text], ensure_ascii=False), encoding, is_json=True)
    # Two halves of a pair that were apart are one character in JSON.
    together = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert json.loads(written.encode(encoding).decode(encoding))[0] in (text, together)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "utf-16"])
@given(text=TEXT)
def test_text_can_be_encoded(encoding: str, text: str) -> None:
    assert len(encodable(text, encoding).encode(encoding).decode(encoding)) == len(text)


def test_replacements() -> None:
    assert encodable("é\ud800🙂") == "é\ufffd🙂"
    assert encodable("é\ud800🙂", "latin-1") == "é??"
    assert encodable("é\ud800🙂", "latin-1", is_json=True) == "é\\ud800\\ud83d\\ude42"
