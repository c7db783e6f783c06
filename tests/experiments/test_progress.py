import json
from pathlib import Path
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.experiments.jobs import Job
from allennlp_metaner.experiments.progress import Progress, check_files


def jobs(experiment: Any) -> list[Job]:
    cells = experiment.cells()
    return [*{cell.needs.folder: cell.needs for cell in cells}.values(), *cells]


def test_time_left(made_up_experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five trainings and ten cells: one of each is done, in 90 and 6 seconds."""
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    progress = Progress(jobs(made_up_experiment), made_up_experiment.runs)
    assert progress.seconds_left() is None
    assert str(progress) == "[0/10 cells, 0:00:00]"
    cell = made_up_experiment.cells("full")[0]
    made_up_experiment.train(cell, [0.5])
    assert progress.seconds_left() is None
    made_up_experiment.finish(cell, 3)
    assert progress.seconds_left() == 4 * 90 + 9 * 6
    monkeypatch.setattr("time.monotonic", lambda: 4725.4)
    assert str(progress) == "[1/10 cells, 1:02:05, about 0:06:54 left]"
    failed = made_up_experiment.cells("base")[0]
    made_up_experiment.write_record(failed, status="failed", error="x", seconds=1000)
    assert progress.seconds_left() == 4 * 90 + 9 * 6


def test_adopted_runs_say_nothing_of_time(made_up_experiment: Any) -> None:
    for cell in made_up_experiment.cells():
        made_up_experiment.finish(cell, 3)
        record = made_up_experiment.train(cell, []) / "record.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "adopted": True}))
    (record.parent / "record.json").unlink()
    assert Progress(jobs(made_up_experiment), made_up_experiment.runs).seconds_left() is None


def test_result(made_up_experiment: Any) -> None:
    cell = made_up_experiment.cells("full", "es")[0]
    progress = Progress(jobs(made_up_experiment), made_up_experiment.runs)
    made_up_experiment.write_record(
        cell, status="finished", seconds=75.4, metrics={"f1-measure-overall": 0.6321}
    )
    assert progress.result(cell) == "full, es, seed 1 finished in 0:01:15, F1 63.21"
    made_up_experiment.train(cell, [0.5])
    assert progress.result(cell.needs) == f"{cell.needs.title} finished in 0:01:30"


def test_missing_files(made_up_experiment: Any, tmp_path: Path) -> None:
    found = tmp_path / "esp.testb"
    grid = made_up_experiment.contents
    targets = {
        "es": {"file": str(found)},
        "nl": {"file": str(tmp_path / "ned.testb")},
        "x": {"file": "http://a/b"},
    }
    (tmp_path / "base.jsonnet").write_text('{ train_data_path: "absent.train", validation_data_path: null }')
    made_up_experiment.write_grid(
        {**grid, "systems": {"base": {"config": "base.jsonnet"}}, "targets": targets}
    )
    found.touch()
    with pytest.raises(ConfigurationError) as error:
        check_files(jobs(made_up_experiment))
    message = str(error.value)
    assert message.startswith("2 files of the grid are missing:")
    assert f"ned.testb (for {made_up_experiment.cells(target='nl')[0].title})" in message
    assert "absent.train (for training base-1-" in message
    assert "esp.testb" not in message and "http" not in message
    assert "Nothing was started" in message and "METANER_DATA" in message
    check_files(made_up_experiment.cells(target="es"))
