"""Raw text to words with character offsets, and words to text."""

# Look-alikes of ASCII are what is tested here.
# ruff: noqa: RUF001

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from allennlp_metaner.data.raw_text import CHINESE_OR_KANA, join, tokenize

# Text with many of the places where a tokenizer may lose an offset.
TEXTS = st.text() | st.text(alphabet=" \t\n\u00a0\u3000.,-'’\"()aÉß9北カ，🙂\u200d\u0301")


def words_of(text: str) -> list[str]:
    return [token for token, _, _ in tokenize(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Maria visited Madrid.", ["Maria", "visited", "Madrid", "."]),
        ("São Paulo (Brasil), 25 may", ["São", "Paulo", "(", "Brasil", ")", ",", "25", "may"]),
        ("¿Qué pasa en París, «Ana»?", ["¿", "Qué", "pasa", "en", "París", ",", "«", "Ana", "»", "?"]),
        ("Peter's bank won.", ["Peter", "'s", "bank", "won", "."]),
        ("New-York 6-4 1996-08-22", ["New-York", "6-4", "1996-08-22"]),
        ("a -- b 1990–95 c—d e...", ["a", "--", "b", "1990", "–", "95", "c", "—", "d", "e", "..."]),
        ("l'Élysée L’Union qu'il", ["l'", "Élysée", "L’", "Union", "qu'", "il"]),
        ("aujourd'hui O'Neill l'", ["aujourd'hui", "O'Neill", "l", "'"]),
        ("U.S. 3.5% 1,000", ["U.S.", "3.5", "%", "1,000"]),
        ("王明在Acme，2020年。", ["王", "明", "在", "Acme", "，", "2020", "年", "。"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("２０年\u3000Ａ", ["２０", "年", "Ａ"]),
        (" \t\n\u00a0", []),
        ("", []),
    ],
)
def test_tokenize(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


@settings(deadline=None)
@given(TEXTS)
@example("El \u00a0 X\n\nY ")
@example("l'Élysée，北京 (New-York).")
def test_offsets(text: str) -> None:
    end_before = 0
    for token, start, end in tokenize(text):
        assert text[start:end] == token != ""
        # Whatever lies between two tokens is blank: nothing is lost, nothing twice.
        assert start >= end_before and not text[end_before:start].strip()
        assert token.split() == [token]
        assert len(token) == 1 or not CHINESE_OR_KANA.search(token)
        end_before = end
    assert not text[end_before:].strip()


@settings(deadline=None)
@given(st.lists(st.text(max_size=6)))
def test_join_offsets(words: list[str]) -> None:
    text, offsets = join(words)
    assert text == " ".join(words)
    assert [text[start:end] for start, end in offsets] == words


@settings(deadline=None)
@given(st.lists(st.text(alphabet="bdéñßж", min_size=1, max_size=6)))
def test_join_then_tokenize(words: list[str]) -> None:
    text, offsets = join(words)
    assert tokenize(text) == [(word, *offset) for word, offset in zip(words, offsets, strict=True)]
