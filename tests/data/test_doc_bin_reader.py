"""spaCy's DocBin: sentences, entities across blanks, documents without labels."""

from pathlib import Path
from typing import Any

import pytest
import spacy
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader
from spacy.tokens import Doc, DocBin, Span

import allennlp_metaner  # noqa: F401  # registers the reader
from allennlp_metaner.data.sentence import words_and_tags

VOCAB = spacy.blank("xx").vocab
WORDS = ["Ana", " ", "Luz", "left", ".", "\n", "Faro", "\n", "rains", "."]


def document(*entities: tuple[int, int, str], sentences: bool = True) -> Doc:
    doc = Doc(VOCAB, WORDS)
    if sentences:
        for token in doc:
            token.is_sent_start = token.i in (0, 5)
    doc.set_ents([Span(doc, start, end, label) for start, end, label in entities])
    return doc


def read(folder: Path, *docs: Doc, **arguments: Any) -> list[Any]:
    path = folder / "data.spacy"
    DocBin(docs=docs).to_disk(path)
    reader = DatasetReader.from_params(Params({"type": "ner_doc_bin", **arguments}))
    return [words_and_tags(instance) for instance in reader.read(str(path))]


def test_sentences_and_entities(tmp_path: Path) -> None:
    doc = document((0, 3, "PER"), (5, 7, "LOC"))
    first, second = ["Ana", "Luz", "left", "."], ["Faro", "rains", "."]
    assert read(tmp_path, doc) == [
        (first, ["B-PER", "I-PER", "O", "O"]),
        (second, ["B-LOC", "O", "O"]),
    ]
    assert read(tmp_path, doc, label_map={"PER": "person", "LOC": "O"}) == [
        (first, ["B-person", "I-person", "O", "O"]),
        (second, ["O"] * 3),
    ]
    # An entity that goes on in the next sentence, and two neighbours of one type.
    doc = document((2, 3, "PER"), (3, 8, "PER"))
    assert [tags for _, tags in read(tmp_path, doc)] == [
        ["O", "B-PER", "B-PER", "I-PER"],
        ["B-PER", "O", "O"],
    ]


def test_documents_without_sentences_or_labels(tmp_path: Path) -> None:
    plain = Doc(VOCAB, ["a", "b"])
    found = read(tmp_path, document((6, 7, "LOC"), sentences=False), plain, Doc(VOCAB, ["\n"]))
    words = ["Ana", "Luz", "left", ".", "Faro", "rains", "."]
    assert found == [(words, ["O"] * 4 + ["B-LOC", "O", "O"]), (["a", "b"], None)]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no sentence found"):
        read(tmp_path, Doc(VOCAB, ["\n"]))
    path = tmp_path / "other.spacy"
    reader = DatasetReader.by_name("ner_doc_bin")()
    for content in (b"", b"no DocBin", b"\x78\x9c\x03\x00\x00\x00\x00\x01"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"other.spacy: is no DocBin"):
            list(reader.read(str(path)))
    with pytest.raises(ConfigurationError, match=r"missing.spacy: cannot be read"):
        list(reader.read(str(tmp_path / "missing.spacy")))
