"""`NameTagger` with a real archive: the same entities as `allennlp predict`, from any number of threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from allennlp_metaner import NameTagger
from allennlp_metaner.tagging.results import Document

SENTENCES = [
    "Maria Novak visited Paris on Monday.",
    "«Peter Smith» won the London Open, ¿no?",
    "Anna Torres and Acme: The Bank of Madrid said 4 percent.",
    "王小明访问了北京。",
]


def found(document: Document) -> list[tuple[str, str, int, int]]:
    return [(entity.text, entity.label, entity.start, entity.end) for entity in document.entities]


@pytest.mark.parametrize("adapt", [True, False])
def test_the_same_as_the_predictor(tiny_archive: Archive, tiny_run: SimpleNamespace, adapt: bool) -> None:
    tagger = NameTagger.load(tiny_run.archive, adapt=adapt)
    predictor = Predictor.from_archive(tiny_archive, extra_args={"adapt": adapt})
    documents = tagger.predict(SENTENCES)
    assert sum(len(document.entities) for document in documents) > 3
    for text, document in zip(SENTENCES, documents, strict=True):
        expected = predictor.predict_json({"sentence": text})
        assert found(document) == [
            (entity["text"], entity["label"], entity["start"], entity["end"])
            for entity in expected["entities"]
        ]
        assert [entity.confidence for entity in document.entities] == pytest.approx(
            [entity["confidence"] for entity in expected["entities"]], abs=1e-4
        )
        (sentence,) = document.sentences
        assert [neighbor.words for neighbor in sentence.neighbors] == [
            neighbor["words"] for neighbor in expected.get("support", [])
        ]


def test_documents_texts_and_words(tiny_tagger: NameTagger) -> None:
    text = "\r\n\r\n".join(SENTENCES)
    document = tiny_tagger.predict(text)
    assert [document.text[s.start : s.end] for s in document.sentences] == SENTENCES
    alone = tiny_tagger.predict(SENTENCES)
    expected = [
        (name, label, sentence.start + start, sentence.start + end)
        for sentence, part in zip(document.sentences, alone, strict=True)
        for name, label, start, end in found(part)
    ]
    assert found(document) == expected
    (of_words,) = tiny_tagger.predict([document.sentences[0].words])
    assert of_words.text == "Maria Novak visited Paris on Monday ."
    assert [name for name, *_ in found(of_words)] == [name for name, *_ in found(alone[0])]
    assert tiny_tagger.predict([]) == []


def test_threads_get_what_one_alone_gets(tiny_tagger: NameTagger) -> None:
    expected = [found(document) for document in tiny_tagger.predict(SENTENCES)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(tiny_tagger.predict, SENTENCES * 6))
    assert [found(document) for document in results] == expected * 6


def test_strings_that_have_no_utf_8(tiny_tagger: NameTagger) -> None:
    document = tiny_tagger.predict("Maria \ud800 visited Pa\udfffris.")
    assert document.text == "Maria \ud800 visited Pa\udfffris."
    assert document.sentences[0].words == ["Maria", "\ufffd", "visited", "Pa", "\ufffd", "ris", "."]


@pytest.mark.parametrize("texts", [None, 1, b"Anna", iter(["Anna"])])
def test_bad_texts(tagger: NameTagger, texts: object) -> None:
    with pytest.raises(ConfigurationError, match="needs a text or a list of texts"):
        tagger.predict(texts)  # type: ignore[call-overload]


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        NameTagger.load(tmp_path / "missing.tar.gz")
    with pytest.raises(ConfigurationError, match="is no archive"):
        NameTagger.load(tmp_path)
