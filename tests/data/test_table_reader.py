"""Tables with a header: quoted cells, sentence columns, and errors with their place."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader

import allennlp_metaner  # noqa: F401  # registers the reader
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.data.table_reader import TableReader

# As large corpora on the web have it: the sentence's name in its first row, commas and quotes as words.
NAMED = """\
Sentence #,Word,POS,Tag
Sentence: 1,Élise,NNP,B-per
,Novak,NNP,I-per
,",",",",O
,left,VBD,O
Sentence: 2,\"""\",``,O
,\"São \"\"Luís\""\",NNP,B-geo
"""
SENTENCES = [
    (["Élise", "Novak", ",", "left"], ["B-per", "I-per", "O", "O"]),
    (['"', 'São "Luís"'], ["O", "B-geo"]),
]
COLUMNS = {"word_column": "Word", "tag_column": "Tag", "sentence_column": "Sentence #"}


def read(folder: Path, content: str, encoding: str = "utf-8", **arguments: Any) -> list[Any]:
    path = folder / "data.csv"
    path.write_bytes(content.encode(encoding))
    params = Params({"type": "ner_table", "encoding": encoding, **arguments})
    return [words_and_tags(instance) for instance in DatasetReader.from_params(params).read(str(path))]


def test_sentence_named_in_its_first_row(tmp_path: Path) -> None:
    assert read(tmp_path, NAMED, **COLUMNS) == SENTENCES
    assert read(tmp_path, NAMED.replace("\n", "\r\n"), "latin-1", **COLUMNS) == SENTENCES
    mapped = read(tmp_path, NAMED, **COLUMNS, label_map={"per": "PER", "geo": "O"})
    assert [tags for _, tags in mapped] == [["B-PER", "I-PER", "O", "O"], ["O", "O"]]


def test_sentence_named_in_each_row(tmp_path: Path) -> None:
    content = "id\ttag\tword\n7\tE-PER\tAna\n7\tI-LOC\tSão\n8\tE-LOC\tFaro\n"
    assert read(tmp_path, content, sentence_column="id", scheme="IOE2") == [
        (["Ana", "São"], ["B-PER", "B-LOC"]),
        (["Faro"], ["B-LOC"]),
    ]


def test_blank_lines_end_sentences(tmp_path: Path) -> None:
    content = 'word;tag\nAna;B-PER\n\n;\n"a;b";O\nc;O\n'
    assert read(tmp_path, content, separator=";") == [(["Ana"], ["B-PER"]), (["a;b", "c"], ["O", "O"])]


def test_quotes_as_words(tmp_path: Path) -> None:
    content = 'word\ttag\n"\tO\nAna\tB-PER\n"\tO\n'
    assert read(tmp_path, content, quote="") == [(['"', "Ana", '"'], ["O", "B-PER", "O"])]
    with pytest.raises(ConfigurationError, match=r"data.csv:2: the word '.tO.nAna.*quote = ''"):
        read(tmp_path, content)
    with pytest.raises(ConfigurationError, match=r"data.csv:4: the row is no CSV .*quote = ''"):
        read(tmp_path, content.replace('"\tO\n', "a\tO\n", 1))


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(NAMED.encode()))
    assert [words_and_tags(instance) for instance in TableReader(**COLUMNS).read(str(path))] == SENTENCES


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("", {}, r":1: there is no column 'word' in the first line, which has "),
        ("Word,tag\na,O\n", {}, r":1: there is no column 'word' .* has 'Word', 'tag'"),
        ("word,tag\n", {}, "no sentence found"),
        ("word,tag\na,O\n\nb,X\n", {}, ":4: 'X' is not a tag of scheme BIO"),
        ('word,tag\n"a\nb",O\nc\n', {}, r":4: 1 cells in \['c'\], but 2 by the first line"),
        ("word,tag\na,O\n ,O\n", {}, ":3: the word is empty"),
        ("word,tag\na,O\n", {"separator": "::"}, "separator='::' must be a single character"),
        ("word,tag\na,O\n", {"scheme": "X"}, "scheme='X' is not one of"),
    ],
)
def test_errors(tmp_path: Path, content: str, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path, content, **arguments)
