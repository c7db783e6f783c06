"""The same entities from Python, `metaner-label`, the service, the spaCy component and `allennlp predict`."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import spacy

from allennlp_metaner import NameTagger
from allennlp_metaner.serving.app import Limits
from allennlp_metaner.serving.taggers import load_taggers
from allennlp_metaner.tagging import spacy_component  # noqa: F401  # registers the component
from tests.commands.conftest import Command
from tests.serving.conftest import running
from tests.tagging.test_name_tagger import SENTENCES

Place = tuple[str, str, int, int]


def places(entities: list[dict[str, Any]]) -> list[Place]:
    return [(found["text"], found["label"], found["start"], found["end"]) for found in entities]


@pytest.mark.parametrize("adapt", [True, False])
def test_same_entities(command: Command, tiny_run: SimpleNamespace, tmp_path: Path, adapt: bool) -> None:
    archive, source = tiny_run.archive, tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"sentence": text}) + "\n" for text in SENTENCES), "utf-8")
    tagger = NameTagger.load(archive, adapt=adapt)
    expected = [
        [(entity.text, entity.label, entity.start, entity.end) for entity in document.entities]
        for document in tagger.predict(SENTENCES)
    ]
    assert sum(map(len, expected)) > 3

    command(
        "metaner-label", archive, source, "-o", tmp_path / "label.jsonl", "--adapt" if adapt else "--no-adapt"
    )
    overrides = json.dumps({"model.adaptation.enabled": adapt})
    command(
        "predict", archive, source, "--output-file", tmp_path / "predict.jsonl", "--silent", "-o", overrides
    )
    for name in ("label", "predict"):
        lines = (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines()
        assert [places(json.loads(line)["entities"]) for line in lines] == expected, name

    with running(load_taggers(str(archive)), Limits()) as service:
        answer = service.post(text=SENTENCES, adapt=adapt).json()
    assert answer["adapt"] == adapt
    assert [places(document["entities"]) for document in answer["documents"]] == expected

    # A pipeline whose tokens are characters, since a name takes the whole of the token in which it ends.
    nlp = spacy.blank("zh")
    nlp.add_pipe("metaner", config={"archive": str(archive), "adapt": adapt, "language": "xx"})
    found = [
        [(entity.text, entity.label_, entity.start_char, entity.end_char) for entity in doc.ents]
        for doc in nlp.pipe(SENTENCES)
    ]
    assert found == expected
