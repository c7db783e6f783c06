"""`allennlp predict`: what goes in, what comes out, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.commands.predict import _PredictManager
from allennlp.common.checks import ConfigurationError
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.raw_text import join
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.predictors.adapting_predictor import AdaptingPredictor

SENTENCES = [
    {"words": ["Peter", "Smith", "won", "the", "Paris", "Open", "."]},
    {"sentence": "The Bank of Madrid said 4 percent."},
    {"sentence": "«María Muñoz» visitó Málaga, ¿no?"},
    {"sentence": "王小明访问了北京。"},
    {"sentence": "  Anna\u200b visited\tNew-York \u200b"},
]


def assert_same(output: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal, apart from the rounding of numbers."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        if isinstance(value, list):
            return [rounded(item) for item in value]
        return pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value

    assert output == rounded(expected)


@pytest.fixture
def predictor(tiny_archive: Archive) -> AdaptingPredictor:
    # The model names its predictor, so `allennlp predict` needs no --predictor.
    found = Predictor.from_archive(tiny_archive)
    assert isinstance(found, AdaptingPredictor)
    return found


@pytest.fixture
def unadapted(tiny_archive: Archive) -> Predictor:
    return Predictor.from_archive(tiny_archive, extra_args={"adapt": False})


@pytest.fixture(autouse=True)
def model_stays(tiny_archive: Archive) -> Iterator[None]:
    """Whatever a test does, the weights are bit for bit what they were, and no gradient is left."""
    model = tiny_archive.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    yield
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert model.get_metrics() == {}  # predictions are not counted


@pytest.mark.parametrize("line", SENTENCES)
def test_output(predictor: AdaptingPredictor, line: dict[str, Any]) -> None:
    output = predictor.predict_json(line)
    assert list(output) == ["text", "words", "tags", "entities", "support"]
    assert output["text"] == line.get("sentence", "Peter Smith won the Paris Open .")
    assert len(output["tags"]) == len(output["words"])
    assert len(output["entities"]) == len(spans(output["tags"]))
    for entity, (label, first, last) in zip(output["entities"], spans(output["tags"]), strict=True):
        assert entity["label"] == label
        assert output["text"][entity["start"] : entity["end"]] == entity["text"]
        assert entity["text"].startswith(output["words"][first])
        assert entity["text"].endswith(output["words"][last])
        assert 0 < entity["confidence"] <= 1
    assert len(output["support"]) == 2
    for neighbor in output["support"]:
        assert len(neighbor["words"]) == len(neighbor["tags"])
    similarities = [neighbor["similarity"] for neighbor in output["support"]]
    assert similarities == sorted(similarities, reverse=True)
    assert -1.0001 <= min(similarities) <= max(similarities) <= 1.0001


def test_entities_are_found(predictor: AdaptingPredictor) -> None:
    outputs = predictor.predict_batch_json(SENTENCES)
    # Without any, the checks above would hold for nothing.
    assert sum(len(output["entities"]) for output in outputs) >= 2
    # Company makes no difference, rounding in the sentence vectors apart.
    for line, output in zip(SENTENCES, outputs, strict=True):
        assert_same(predictor.predict_json(line), output)


def test_words_of_raw_text(predictor: AdaptingPredictor) -> None:
    words = [predictor.predict_json(line)["words"] for line in SENTENCES]
    assert words[2] == ["«", "María", "Muñoz", "»", "visitó", "Málaga", ",", "¿", "no", "?"]
    assert words[3] == list("王小明访问了北京。")
    assert predictor.predict("Ton won .") == predictor.predict_json({"sentence": "Ton won ."})


def test_an_entity_has_the_lowest_probability_of_its_words(predictor: AdaptingPredictor) -> None:
    instances = predictor.instances([SENTENCES[0]["words"]])  # type: ignore[list-item]
    (output,) = predictor._label(instances)
    output["tags"], (probabilities,) = (
        [["O", "B-PER", "I-PER", "O", "O", "B-LOC", "O"]],
        output["probabilities"],
    )
    described = predictor._describe(output, instances[0], "012345678", [(i, i + 1) for i in range(7)])
    assert [entity["text"] for entity in described["entities"]] == ["12", "5"]
    assert [entity["confidence"] for entity in described["entities"]] == [
        min(probabilities[1:3]),
        probabilities[5],
    ]


def test_instances_of_the_reader(predictor: AdaptingPredictor, tiny_run: SimpleNamespace) -> None:
    """`--use-dataset-reader`: gold tags make no difference."""
    instances = list(predictor._reader.read(str(tiny_run.data / "conll2003/eng.testb")))[:4]
    outputs = predictor.predict_batch_instance(instances)
    assert len(outputs) == 4
    for instance, output in zip(instances, outputs, strict=True):
        assert_same(predictor.predict_json({"words": output["words"]}), output)
        assert_same(predictor.predict_instance(instance), output)


def test_without_adaptation(predictor: AdaptingPredictor, unadapted: Predictor) -> None:
    plain = unadapted.predict_batch_json(SENTENCES)
    assert all("support" not in output for output in plain)
    for line, output in zip(SENTENCES, plain, strict=True):
        assert_same(unadapted.predict_json(line), output)
    adapted = predictor.predict_batch_json(SENTENCES)
    assert [o["words"] for o in adapted] == [o["words"] for o in plain]
    assert [o["tags"] for o in adapted] != [o["tags"] for o in plain]


def test_without_adaptation_any_reader_will_do(tiny_archive: Archive, unadapted: Predictor) -> None:
    reader = ColumnReader(token_indexers=tiny_archive.validation_dataset_reader._token_indexers)
    predictor = AdaptingPredictor(tiny_archive.model, reader, adapt=False)
    assert predictor.predict_json(SENTENCES[0]) == unadapted.predict_json(SENTENCES[0])
    with pytest.raises(ConfigurationError, match=r"ColumnReader.*'pseudo_tasks'.*\"adapt\": false"):
        AdaptingPredictor(tiny_archive.model, reader)


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"sentence": ["a"]},
        {"sentence": None},
        {"words": ["a", 1]},
        {"words": "a b"},
        {"words": "a b", "sentence": "a"},
        {"error": "a"},
    ],
)
def test_bad_input(predictor: AdaptingPredictor, line: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"sentence 2 of the input batch is .*should be") as error:
        predictor.predict_batch_json([{"sentence": "fine"}, line])
    assert repr(line) in str(error.value)


def test_a_masking_reader_is_refused(tiny_archive: Archive) -> None:
    with pytest.raises(ConfigurationError, match="adaptation masks entity words"):
        Predictor.from_archive(tiny_archive, dataset_reader_to_load="train")


def test_command_line_batches(predictor: AdaptingPredictor, tmp_path: Path) -> None:
    line = predictor.dump_line(predictor.predict_json(SENTENCES[3]))
    assert predictor.load_line(line)["words"] == list("王小明访问了北京。")


BLANK: list[dict[str, Any]] = [{"sentence": ""}, {"sentence": " \n\u200b"}, {"words": []}]


@pytest.mark.parametrize("adapt", [True, False])
def test_blank_text_has_no_entities(predictor: Any, unadapted: Any, adapt: bool) -> None:
    found = predictor if adapt else unadapted
    nothing: dict[str, Any] = {"words": [], "tags": [], "entities": []}
    if adapt:
        nothing["support"] = []
    for line in BLANK:
        expected = {"text": line.get("sentence", ""), **nothing}
        assert found.predict_json(line) == expected
        first, second, third = found.predict_batch_json([SENTENCES[0], line, SENTENCES[1]])
        assert second == expected and len(first["words"]) == len(first["tags"]) == 7
        assert third["text"] == SENTENCES[1]["sentence"]
    assert found.predict_batch_json([]) == found.predict_batch_instance([]) == []


def test_blank_words_have_tags_but_are_no_entities(predictor: AdaptingPredictor) -> None:
    words = ["Peter", "", " ", "Smith", "won"]
    output = predictor.predict_json({"words": words})
    assert output["words"] == words and len(output["tags"]) == 5
    instances = predictor.instances([words])
    (labelled,) = predictor._label(instances)
    labelled["tags"] = [["O", "B-PER", "I-PER", "B-LOC", "O"]]
    described = predictor._describe(labelled, instances[0], *join(words))
    assert described["tags"] == ["O", "O", "O", "B-LOC", "O"]
    assert [entity["text"] for entity in described["entities"]] == ["Smith"]


def test_lone_surrogates_stay_in_the_text(predictor: AdaptingPredictor, unadapted: Predictor) -> None:
    for line in ({"sentence": "Peter \ud83d won Paris"}, {"words": ["Peter", "\ud83d", "won", "Paris"]}):
        for output in (predictor.predict_json(line), unadapted.predict_json(line)):
            assert output["text"] == "Peter \ud83d won Paris"
            assert output["words"] == ["Peter", "\ufffd", "won", "Paris"]
            for entity in output["entities"]:
                assert output["text"][entity["start"] : entity["end"]] == entity["text"]
            assert json.loads(unadapted.dump_line(output).encode()) == output


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters() | st.characters(categories=["Cs", "Zs", "Cf"]), max_size=8), max_size=6)
)
def test_every_string_and_list_gets_an_answer(unadapted: Predictor, words: list[str]) -> None:
    first, second = unadapted.predict_batch_json([{"words": words}, {"sentence": " ".join(words)}])
    assert first["text"] == second["text"] == " ".join(words)
    assert len(first["tags"]) == len(words)
    for output in (first, second):
        assert all(entity["text"].strip() for entity in output["entities"])
        assert json.loads(unadapted.dump_line(output).encode())["tags"] == output["tags"]


def test_a_long_word_is_cheap(unadapted: Predictor) -> None:
    output = unadapted.predict_json({"sentence": f"Peter {'z' * 100_000} won"})
    assert list(map(len, output["words"])) == [5, 100_000, 3]


LINES = ["\ufeff" + '{"sentence": "Peter won."}', "{", '{"sentence": 1}', "[" * 100_000]
LINES += ['{"sentence": ""}', '{"sentence": "Peter \\ud83d won."}', '{"words": ["Anna"]}']


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_command_line(unadapted: Predictor, tmp_path: Path, batch_size: int) -> None:
    """One line of output for each of input, whatever is on it."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n\n".join(LINES), encoding="utf-8")
    predictor = AdaptingPredictor(unadapted._model, unadapted._dataset_reader, adapt=False)
    _PredictManager(predictor, str(source), str(output), batch_size, False, False).run()
    found = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [line["text"] for line in found] == ["Peter won.", "", "", "", "", "Peter \ud83d won.", "Anna"]
    assert [line.get("error", "")[:6] for line in found] == ["", "line 2", "line 3", "line 4", "", "", ""]
    assert all(len(line["words"]) == len(line["tags"]) for line in found)


def test_command_line_that_ends_at_the_first_error(tiny_archive: Archive) -> None:
    predictor = Predictor.from_archive(tiny_archive, extra_args={"adapt": False, "fail_fast": True})
    assert predictor.load_line(LINES[0]) == {"sentence": "Peter won."}
    with pytest.raises(ConfigurationError, match=r"line 2 of the input .* is '{', which is not JSON"):
        predictor.load_line("{")
