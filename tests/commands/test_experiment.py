"""The command as AllenNLP finds it; what it does is tested in tests/experiments."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from allennlp.commands import main
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.commands import experiment
from allennlp_metaner.experiments.jobs import Cell, Training

ROOT = Path(__file__).parents[2]


class Recorder:
    progress = "[1/2 cells]"
    failed: list[Any] = []  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        self.arguments.append(arguments)

    arguments: list[Any] = []  # noqa: RUF012

    def run(self) -> list[Any]:
        return self.failed

    def pending(self) -> list[Any]:
        return [self.training, Cell("base", "es", self.training, __file__, {})]

    training = Training({"train_data_path": __file__, "trainer": {}}, "0" * 64, "base.jsonnet", 1, {})


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr(experiment, "ExperimentRunner", Recorder)
    monkeypatch.setattr(experiment, "read_grid", lambda grid, directory: [grid, directory])
    monkeypatch.setattr(Recorder, "arguments", [])
    # AllenNLP's own optional plugins take long to import.
    monkeypatch.setattr("allennlp.common.plugins.DEFAULT_PLUGINS", ())
    monkeypatch.chdir(ROOT)
    return Recorder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["allennlp", "metaner-experiment", *arguments])
    main()


def test_command(
    recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "grid.jsonnet", "-s", "runs/x", "--include-package", "allennlp_metaner")
    assert recorder.arguments == [
        ([Path("grid.jsonnet"), Path("runs/x")], Path("runs/x"), ["allennlp_metaner"])
    ]
    assert "[1/2 cells]" in capsys.readouterr().out


def test_goes_on_in_a_folder_that_has_results(
    recorder: type[Recorder],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "cells").mkdir()
    call(monkeypatch, "grid.jsonnet", "-s", str(tmp_path))
    assert "[1/2 cells]" in capsys.readouterr().out
    (tmp_path / "cells").rmdir()
    (tmp_path / "cells").touch()
    with pytest.raises(ConfigurationError, match=r"cells/record\.json"):
        call(monkeypatch, "grid.jsonnet", "-s", str(tmp_path))


def test_dry_run(
    recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is done, and missing data is told all the same."""
    monkeypatch.setattr(recorder, "run", lambda self: pytest.fail("it runs"))
    loader = {"batches_per_epoch": 4, "batch_size": 300}
    training = dataclasses.replace(
        recorder.training, config={"trainer": {"num_epochs": 2}, "data_loader": loader}
    )
    monkeypatch.setattr(recorder, "training", training)
    call(monkeypatch, "grid.jsonnet", "-s", "runs/x", "--dry-run")
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "training base-1-000000000000: 2,400 sentences shown in all",
        "base, es, seed 1",
        "1 trainings and 1 evaluations are to be done.",
    ]
    absent = dataclasses.replace(recorder.training, config={"trainer": {}, "train_data_path": "absent.txt"})
    monkeypatch.setattr(recorder, "training", absent)
    with pytest.raises(ConfigurationError, match=r"absent\.txt \(for training base-1"):
        call(monkeypatch, "grid.jsonnet", "-s", "runs/x", "--dry-run")


def test_failures_give_an_exit_status(recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed:
        folder = Path("cells/base-es-1-abc")

    monkeypatch.setattr(recorder, "failed", [Failed()])
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, "grid.jsonnet", "-s", "runs/x")
    # A message is printed, and the status is 1.
    assert "1 failed" in str(exit_.value.code)
    assert "runs/x/cells/base-es-1-abc" in str(exit_.value.code)
