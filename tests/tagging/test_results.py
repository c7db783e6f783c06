"""Results as dictionaries, columns, spaCy documents and HTML."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from allennlp_metaner.data.characters import without_surrogates
from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.name_tagger import NameTagger
from tests.data.test_sentence_splitting import TEXT
from tests.tagging.conftest import CapitalsBackend

# The blanks, the emoji and the direction mark are what a place in characters may go wrong at.
TEXT_WITH_NAMES = "  🙂 then Anna  Novak\tmet\u200f Élise.\r\n\r\nthe City <b>&amp; \u00a0Peter"


def test_dictionary(tagger: NameTagger) -> None:
    content = tagger.predict(TEXT_WITH_NAMES).to_dict()
    assert json.loads(json.dumps(content))["entities"] == content["entities"]
    assert list(content) == ["text", "entities", "sentences"]
    assert content["entities"][0] == {
        "text": "Anna  Novak",
        "label": "PER",
        "start": 9,
        "end": 20,
        "confidence": pytest.approx(1 / 3),
    }
    assert content["sentences"][0]["words"] == ["🙂", "then", "Anna", "Novak", "met\u200f", "Élise", "."]
    assert content["sentences"][0]["tags"] == ["O", "O", "B-PER", "I-PER", "O", "B-LOC", "O"]
    assert content["sentences"][1]["neighbors"] == [
        {"words": ["Peter", "left"], "tags": ["B-PER", "O"], "similarity": 0.5}
    ]
    assert list(tagger.predict(TEXT_WITH_NAMES).to_dict(sentences=False)) == ["text", "entities"]
    assert tagger.predict("a").sentences[0].neighbors[0].text == "Peter left"


def test_columns_can_be_read_again(tagger: NameTagger, tmp_path: Path) -> None:
    document = tagger.predict(TEXT_WITH_NAMES)
    path = tmp_path / "names.conll"
    path.write_text(document.to_conll(), encoding="utf-8", newline="")
    read = [words_and_tags(instance) for instance in ColumnReader(separator="\t").read(str(path))]
    assert read == [(sentence.words, sentence.tags) for sentence in document.sentences]


def test_words_that_callers_may_give(tagger: NameTagger, tmp_path: Path) -> None:
    words = ["New\tYork", "", " ", "\ud800x", "Ana\n", "\t"]
    (document,) = tagger.predict([words])
    assert document.text == " ".join(words)
    assert [entity.text for entity in document.entities] == ["New\tYork", "Ana\n"]
    path = tmp_path / "names.conll"
    path.write_text(document.to_conll(), encoding="utf-8", newline="")
    (read,) = [words_and_tags(instance) for instance in ColumnReader(separator="\t").read(str(path))]
    assert read[0] == ["New\ufffdYork", "\ufffd", "\ufffd", "\ufffdx", "Ana\ufffd", "\ufffd"]
    doc = document.to_spacy()
    assert doc.text == without_surrogates(document.text)
    assert [entity.text for entity in doc.ents] == ["New\tYork", "Ana\n"]


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_spacy_documents_have_the_same_text_and_entities(text: str) -> None:
    (document,) = Engine(CapitalsBackend()).pipe([text])
    doc = document.to_spacy()
    assert doc.text == without_surrogates(text)
    assert [(e.text, e.label_, e.start_char, e.end_char) for e in doc.ents] == [
        (without_surrogates(e.text), e.label, e.start, e.end) for e in document.entities
    ]
    starts = [token.idx for token in doc if token.is_sent_start]
    assert starts == [sentence.start for sentence in document.sentences]
    assert [e._.confidence for e in doc.ents] == [e.confidence for e in document.entities]


def test_html(tagger: NameTagger) -> None:
    document = tagger.predict(TEXT_WITH_NAMES)
    html = document.to_html()
    assert "&lt;b&gt;&amp;amp;" in html and "<b>" not in html
    assert html.count("<mark") == 4 and "PER 0.33" in html
    assert document._repr_html_() == html
    assert document.to_html(page=True).startswith("<!DOCTYPE html>")
    assert "<mark" not in tagger.predict("").to_html()
