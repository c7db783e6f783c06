"""Sentences as JSON lines: words, text, and where the one stands in the other."""

from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.data.json_sentences import DEEPEST, load_json, parse_sentence, read_sentences


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        ({"sentence": " Anna ist in\tKöln."}, " Anna ist in\tKöln.", ["Anna", "ist", "in", "Köln", "."]),
        ({"words": ["Anna", "ist", "da."]}, "Anna ist da.", ["Anna", "ist", "da."]),
        ({"words": ["Anna"], "sentence": "ignored"}, "Anna", ["Anna"]),
        ({"text": "Anna ist da."}, "Anna ist da.", ["Anna", "ist", "da", "."]),
        ({"tokens": ["Anna", "da."], "ner_tags": [1, 0]}, "Anna da.", ["Anna", "da."]),
        ({"tokens": ["ignored"], "text": "ignored", "sentence": "Anna"}, "Anna", ["Anna"]),
        ({"words": ["a", "", " "]}, "a   ", ["a", "", " "]),
        ({"words": []}, "", []),
        ({"sentence": " \n"}, " \n", []),
        ({"sentence": ""}, "", []),
    ],
)
def test_parse(line: dict[str, object], text: str, words: list[str]) -> None:
    parsed = parse_sentence(line, "here")
    assert (parsed.text, parsed.words) == (text, words)
    assert [text[start:end] for start, end in parsed.offsets] == words


@pytest.mark.parametrize(
    "line", [None, 1, "text", ["a"], {}, {"sentence": 1}, {"words": "a"}, {"words": [1]}, {"tokens": [1]}]
)
def test_neither(line: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^here is .*should be"):
        parse_sentence(line, "here")


def test_blank_lines_count_but_are_no_sentences(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('\ufeff{"words": ["a"]}\r\n \n{"words": ["b"]}\n{"words"', "utf-8")
    sentences = read_sentences(path)
    assert [next(sentences).text, next(sentences).text] == ["a", "b"]
    with pytest.raises(ConfigurationError, match=r"lines\.jsonl:4: .* is not JSON"):
        next(sentences)


def test_lone_surrogates() -> None:
    for line in ({"sentence": "Anna \ud83d left"}, {"words": ["Anna", "\ud83d", "left"]}):
        parsed = parse_sentence(line, "here")
        assert parsed.text == "Anna \ud83d left"
        assert parsed.words == ["Anna", "\ufffd", "left"]
        assert parsed.offsets == [(0, 4), (5, 6), (7, 11)]


@pytest.mark.parametrize("line", ["", "{", "[" * 100_000, "1" * 5_000, '"\ud800'])
def test_what_is_no_json(line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^here is .* which is not JSON") as error:
        load_json(line, "here")
    assert len(str(error.value)) < 1000


def nested(depth: int) -> str:
    return '{"sentence": "[", "x": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


def test_nested_values() -> None:
    assert load_json(nested(DEEPEST), "here")["sentence"] == "["
    # What is in a string is not nested.
    assert load_json(f'"{"[" * 10 * DEEPEST}"', "here") == "[" * 10 * DEEPEST
    for depth in (DEEPEST + 1, 500, 900):
        with pytest.raises(ConfigurationError, match=rf"which is not JSON \(more than {DEEPEST} lists"):
            load_json(nested(depth), "here")


def test_numbers_that_json_does_not_have() -> None:
    line = '{"a": 1e999, "b": [-1e999, NaN, Infinity, -Infinity], "c": 1.5, "d": 7, "e": "NaN"}'
    assert load_json(line, "here") == {"a": None, "b": [None] * 4, "c": 1.5, "d": 7, "e": "NaN"}
