"""The component `metaner` in spaCy pipelines."""

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import spacy
from spacy.tokens import Doc

from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.spacy_component import MetanerComponent

TEXTS = [
    "Maria Novak visited Paris on Monday.",
    "",
    "Anna Torres won.\r\n\r\nPeter Smith left the Bank of Madrid.",
]


def names(doc: Doc) -> list[tuple[str, str, int, int]]:
    return [(entity.text, entity.label_, entity.start_char, entity.end_char) for entity in doc.ents]


def test_pipelines(tiny_run: SimpleNamespace, tiny_tagger: NameTagger, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("metaner", config={"archive": str(tiny_run.archive)})
    expected = [
        [(entity.text, entity.label, entity.start, entity.end) for entity in document.entities]
        for document in tiny_tagger.predict(TEXTS)
    ]
    assert sum(map(len, expected)) > 3
    docs = list(nlp.pipe(TEXTS, batch_size=2))
    assert [names(doc) for doc in docs] == expected
    assert names(nlp(TEXTS[0])) == expected[0]
    assert all(0 < entity._.confidence <= 1 for doc in docs for entity in doc.ents)
    # What is saved keeps the path of the archive.
    nlp.to_disk(tmp_path / "pipeline")
    assert names(spacy.load(tmp_path / "pipeline")(TEXTS[0])) == expected[0]


def test_names_inside_of_tokens_take_the_whole_token(tagger: NameTagger) -> None:
    doc = Doc(spacy.blank("en").vocab, words=["then", "(Anna)left"], spaces=[True, False])
    (entity,) = MetanerComponent(tagger)(doc).ents
    assert entity.text == "(Anna)left"


def test_errors_are_raised(tagger: NameTagger) -> None:
    nlp = spacy.blank("en")
    docs = map(nlp.make_doc, ["Anna left", "it went boom"])
    with pytest.raises(Exception, match="document 2: sentence 1, 'it went boom', cannot be labelled"):
        list(MetanerComponent(tagger).pipe(docs))


def test_entry_point() -> None:
    setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    found = re.search(r'"spacy_factories": \["metaner = (.+?):(.+?)"', setup)
    assert found is not None
    assert callable(getattr(import_module(found[1]), found[2]))
