"""`allennlp metaner-report`: which files it writes, and clear errors. What is in them is tested elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.commands import report

Command = Callable[..., None]
FILES = ["curves.svg", "f1.svg", "report.csv", "report.md"]


@pytest.fixture
def experiment(made_up_experiment: Any) -> Any:
    for cell in made_up_experiment.cells(target="es"):
        made_up_experiment.finish(cell, 3)
        made_up_experiment.train(cell, [0.5, 0.75])
    return made_up_experiment


def test_files(command: Command, experiment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["metaner-report", experiment.grid, "-s", experiment.runs, "-o"]
    command(*arguments, tmp_path / "new/a", "--compare", "full", "no_masking")
    assert "5 of 10 cells: wrote" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "new/a").iterdir()) == FILES
    text = (tmp_path / "new/a/report.md").read_text("utf-8")
    assert "| es | full - base |" in text and "| es | full - no_masking |" in text
    assert all(f"({name})" in text for name in ("f1.svg", "curves.svg"))
    # Another time, the same.
    command(*arguments, tmp_path / "b", "--compare", "full", "no_masking")
    for name in FILES:
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "new/a" / name).read_bytes()


def test_an_old_report_is_kept_if_a_new_one_cannot_be_made(
    command: Command, experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["metaner-report", experiment.grid, "-s", experiment.runs, "-o", tmp_path / "a"]
    command(*arguments)
    before = {name: (tmp_path / "a" / name).read_bytes() for name in FILES}
    experiment.finish(experiment.cells("base", "nl")[0], 3)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "plot_curves", fail)
    with pytest.raises(KeyboardInterrupt):
        command(*arguments)
    assert {name: (tmp_path / "a" / name).read_bytes() for name in FILES} == before


def test_nothing_finished(command: Command, made_up_experiment: Any, tmp_path: Path) -> None:
    grid, runs = made_up_experiment.grid, made_up_experiment.runs
    expected = (
        r"runs: no cell of .*grid.jsonnet is finished\. Run `allennlp metaner-experiment .* -s .*runs` first"
    )
    with pytest.raises(ConfigurationError, match=expected):
        command("metaner-report", grid, "-s", runs, "-o", tmp_path / "a")
    made_up_experiment.write_record(made_up_experiment.cells()[0], status="failed", error="")
    with pytest.raises(
        ConfigurationError, match="is finished, but others are, or failed, such as base-es-1-"
    ):
        command("metaner-report", grid, "-s", runs, "-o", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_refused(command: Command, experiment: Any, tmp_path: Path) -> None:
    arguments = ["metaner-report", experiment.grid, "-s", experiment.runs, "-o", tmp_path / "a"]
    with pytest.raises(
        ConfigurationError, match="--compare full none: the grid has no system none, but base"
    ):
        command(*arguments, "--compare", "full", "none")
    experiment.finish(experiment.cells("full", "es")[1], 3, experiment.sentences[1:])
    with pytest.raises(ConfigurationError, match="cannot be compared: 30 and 29 sentences"):
        command(*arguments)
    assert not (tmp_path / "a").exists()
