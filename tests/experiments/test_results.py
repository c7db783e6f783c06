import json
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.experiments.results import Result, Results, status


def finished(experiment: Any, every: int = 3) -> Result:
    cell = experiment.cells()[0]
    experiment.finish(cell, every)
    (result,) = Results([cell], experiment.runs).finished
    return result


def test_finished_and_missing(made_up_experiment: Any) -> None:
    cells = made_up_experiment.cells()
    made_up_experiment.finish(cells[0], 3)
    made_up_experiment.write_record(
        cells[1], status="failed", error="ValueError: first\nsecond " + 300 * "long "
    )
    results = Results(cells, made_up_experiment.runs)
    assert [result.cell for result in results.finished] == cells[:1]
    assert [cell for cell, _ in results.missing] == cells[1:]
    (_, failed), (_, missing), *_ = results.missing
    assert failed.startswith("failed: ValueError: first second long")
    assert len(failed) <= 300
    assert missing == status(None) == "no record"
    assert (results.systems, results.targets) == (["base", "full", "no_masking"], ["es", "nl"])
    assert results.targets_of("full") == ("es", "nl")
    assert results.f1("base", "es") == {1: results.finished[0].scores["overall"].f1}
    assert results.f1("base", "es", "NONE") == results.f1("full", "es") == {}


def test_scores(made_up_experiment: Any) -> None:
    result = finished(made_up_experiment)
    assert list(result.scores) == ["overall", "LOC", "MISC", "ORG", "PER"]
    overall = result.scores["overall"]
    assert overall.precision == 100
    assert overall.f1 == pytest.approx(2 * 100 * overall.recall / (100 + overall.recall))
    assert overall.f1 == pytest.approx(100 * result.record["metrics"]["f1-measure-overall"])


def test_predictions(made_up_experiment: Any) -> None:
    result = finished(made_up_experiment, every=30)
    assert result.predictions is not None
    counts = result.predictions.counts
    assert counts.shape == (30, 3)
    # Only what is in sentence 29 is overlooked.
    assert (counts[:29, 0] == counts[:29, 2]).all()
    assert counts[29, :2].tolist() == [0, 0]
    assert (result.folder / "predictions.jsonl").unlink() is None
    assert Result(result.cell, result.folder, result.record).predictions is None


def test_refused(made_up_experiment: Any) -> None:
    result = finished(made_up_experiment)
    path = result.folder / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)

    path.write_text("".join(lines[1:]))
    with pytest.raises(
        ConfigurationError, match=r"predictions.jsonl has F1 .*record.json .*not of one evaluation"
    ):
        Result(result.cell, result.folder, result.record).predictions  # noqa: B018
    for line in (
        '{"words": ["a"], "gold": ["O"]}\n',
        lines[0][:-5],
        "[1]\n",
        lines[0].replace('"O", ', "", 1),
    ):
        path.write_text("".join([lines[0], line]))
        with pytest.raises(ConfigurationError, match=r"predictions.jsonl:2: not a line of words, gold and"):
            Result(result.cell, result.folder, result.record).predictions  # noqa: B018

    other = Result(result.cell, result.folder, {"metrics": {"accuracy": 1.0}})
    with pytest.raises(ConfigurationError, match=r"record.json: no metric f1-measure-overall, but accuracy"):
        other.scores  # noqa: B018


def test_sentences_are_told_apart_by_words_and_gold_tags(made_up_experiment: Any) -> None:
    first = finished(made_up_experiment).predictions
    again = finished(made_up_experiment, every=4).predictions
    assert first and again and first.sentences == again.sentences
    words, gold = made_up_experiment.sentences[0]
    for changed in ((["Other", *words[1:]], gold), (words, ["O"] * len(gold))):
        cell = made_up_experiment.cells()[0]
        made_up_experiment.finish(cell, 3, [changed, *made_up_experiment.sentences[1:]])
        (result,) = Results([cell], made_up_experiment.runs).finished
        assert result.predictions
        differing = [a != b for a, b in zip(first.sentences, result.predictions.sentences, strict=True)]
        assert differing == [True] + [False] * 29


def test_the_record_is_of_this_cell(made_up_experiment: Any) -> None:
    cell = made_up_experiment.cells()[0]
    made_up_experiment.finish(cell, 3)
    config = made_up_experiment.grid.parent / "base.jsonnet"
    config.write_text(json.dumps({**json.loads(config.read_text()), "changed": True}))
    assert not Results(made_up_experiment.cells(), made_up_experiment.runs).finished
