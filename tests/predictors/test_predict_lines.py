"""Lines of `allennlp predict`: fields that are kept, what may be left out, errors that name the line."""

import json

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor


def test_fields_of_the_input_are_kept(tiny_archive: Archive) -> None:
    predictor = Predictor.from_archive(tiny_archive, extra_args={"with_support": False})
    lines = [
        {"id": 7, "sentence": "Anna left.", "tags": "mine"},
        {"words": ["Élise", "left"], "file": "a.txt"},
    ]
    first, second = predictor.predict_batch_json(lines)
    assert list(first) == ["id", "tags", "text", "words", "entities"]
    assert first["id"] == 7 and len(first["tags"]) == len(first["words"]) == 3
    assert second["file"] == "a.txt" and second["text"] == "Élise left"
    assert predictor.predict("Anna left.").keys() == {"text", "words", "tags", "entities"}


def test_lines(tiny_archive: Archive) -> None:
    predictor = Predictor.from_archive(tiny_archive, extra_args={"fail_fast": True})
    assert predictor.load_line('{"sentence": "Anna left."}\n') == {"sentence": "Anna left."}
    with pytest.raises(ConfigurationError, match=r"line 2 of the input.*'Anna left.', which is not JSON"):
        predictor.load_line("Anna left.\n")
    with pytest.raises(ConfigurationError, match=r"line 3 of the input.*is {'sentence': 1}, but should be"):
        predictor.load_line('{"sentence": 1}\n')
    assert predictor.dump_line({"text": "Élise"}) == '{"text": "Élise"}\n'
    assert json.loads(predictor.dump_line({"text": "\ud800"}).encode()) == {"text": "\ud800"}
