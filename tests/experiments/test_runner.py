"""With real trainings and evaluations of a tiny model, in real processes."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from allennlp_metaner.experiments.curves import read_curves
from allennlp_metaner.experiments.grid import read_grid
from allennlp_metaner.experiments.results import Results
from allennlp_metaner.experiments.runner import ExperimentRunner
from tests.processes import RunningProcess

ROOT = Path(__file__).parents[2]
# Ends its process in the middle of the second epoch, if told so by a file, which it takes away.
CALLBACK = """
import os, time
from pathlib import Path
import torch
from allennlp.training import TrainerCallback

@TrainerCallback.register("trouble")
class Trouble(TrainerCallback):
    def on_batch(self, trainer, inputs, outputs, metrics, epoch, batch, is_training, *args, **kwargs):
        if not is_training:
            return
        Path(os.environ["TROUBLE"], "threads").write_text(str(torch.get_num_threads()))
        with Path(os.environ["TROUBLE"], "updates").open("a") as file:
            file.write(f"{os.getpid()} {epoch}\\n")
        if epoch == 1:
            kill, slow = Path(os.environ["TROUBLE"], "kill"), Path(os.environ["TROUBLE"], "slow")
            if kill.exists():
                kill.unlink()
                os.kill(os.getpid(), 9)
            while slow.exists():
                time.sleep(0.05)
"""
PACKAGES = ("allennlp_metaner", "trouble_callback")


@pytest.fixture
def setting(
    tiny_data: Path,
    tiny_word_encoder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    running_process: type[RunningProcess],
) -> SimpleNamespace:
    """A grid of two systems that share a training, and a third, whose training fails."""
    monkeypatch.setenv("METANER_DATA", str(tiny_data))
    monkeypatch.setenv("METANER_ENCODER", tiny_word_encoder)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "trouble_callback.py").write_text(CALLBACK)
    overrides = {
        "data_loader.batch_size": 4,
        "data_loader.batches_per_epoch": 2,
        "trainer.num_epochs": 2,
        "trainer.callbacks": [{"type": "trouble"}],
    }
    config = {"config": os.path.relpath(ROOT / "training_configs/meta_en.jsonnet", tmp_path)}
    systems = {
        "plain": {**config, "overrides": overrides, "adapt": False},
        "broken": {**config, "overrides": {**overrides, "trainer.optimizer.type": "nonsense"}},
        "adapted": {**config, "overrides": overrides},
    }
    layout = {"validation_dataset_reader.base_reader.num_columns": 3}
    grid = {
        "seeds": [1],
        "environment": {"METANER_CACHE": str(tmp_path / "cache"), "TROUBLE": str(tmp_path)},
        "systems": systems,
        "targets": {"es": {"file": str(tiny_data / "conll2002/esp.testb"), "overrides": layout}},
    }
    (tmp_path / "grid.jsonnet").write_text(json.dumps(grid))
    return SimpleNamespace(folder=tmp_path, grid=grid)


def runner(
    folder: Path, name: str = "runs", report: Callable[[str], None] = lambda line: None
) -> ExperimentRunner:
    cells = read_grid(folder / "grid.jsonnet", folder / name)
    return ExperimentRunner(cells, folder / name, PACKAGES, report, poll_seconds=0.05)


def run(folder: Path, name: str = "runs") -> int:
    return len(runner(folder, name).run())


def without(setting: SimpleNamespace, system: str) -> None:
    systems = {name: entry for name, entry in setting.grid["systems"].items() if name != system}
    (setting.folder / "grid.jsonnet").write_text(json.dumps({**setting.grid, "systems": systems}))


def records(runs: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/*/record.json")}


def results(runs: Path) -> dict[str, Any]:
    """What must not depend on what happened on the way."""
    changing = ("duration", "memory", "start_epoch")
    return {
        name: (
            record["status"],
            record["hash"],
            {k: v for k, v in record.get("metrics", {}).items() if not any(part in k for part in changing)},
        )
        for name, record in records(runs).items()
    }


def updates(folder: Path) -> list[str]:
    return (folder / "updates").read_text().splitlines()


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_failures_and_finished_cells(setting: SimpleNamespace, threads: Callable[[int], None]) -> None:
    threads(2)
    lines: list[str] = []
    failed = runner(setting.folder, report=lines.append).run()
    # A process that is forked from one that has computed has one thread; a job has those of its runner.
    assert (setting.folder / "threads").read_text() == "2"
    assert [job.title for job in failed if job.title.startswith("broken")] == ["broken, es, seed 1"]
    assert len(failed) == 2
    found = records(setting.folder / "runs")
    by_system = {record["system"]: record for record in found.values() if "system" in record}
    assert {name: record["status"] for name, record in by_system.items()} == {
        "plain": "finished",
        "broken": "failed",
        "adapted": "finished",
    }
    assert "which failed" in by_system["broken"]["error"]
    assert (
        "nonsense"
        in next(record for name, record in found.items() if name in by_system["broken"]["error"])["error"]
    )
    assert by_system["plain"]["training"] == by_system["adapted"]["training"]
    plain = by_system["plain"]
    assert "f1-measure-overall" in plain["metrics"]
    assert {"versions", "seed", "device", "seconds", "command", "hash"} <= plain.keys()
    assert any(line.startswith("[1/3 cells, ") and "] plain, es, seed 1" in line for line in lines)
    assert any("FAILED" in line for line in lines)
    f1 = 100 * by_system["plain"]["metrics"]["f1-measure-overall"]
    assert any("plain, es, seed 1 finished in 0:" in line and f", F1 {f1:.2f}" in line for line in lines)

    # What a report reads.
    cells = read_grid(setting.folder / "grid.jsonnet", setting.folder / "runs")
    results = Results(cells, setting.folder / "runs")
    assert [cell.system for cell, _ in results.missing] == ["broken"]
    assert all(result.predictions for result in results.finished)
    (plain_curve,) = (
        curve for curve in read_curves(cells, setting.folder / "runs") if "plain" in curve.systems
    )
    assert [point.epoch for point in plain_curve.points] == [1, 2]
    assert (plain_curve.epochs, plain_curve.updates_per_epoch) == (2, 2)

    # Again: what failed is tried again, what is finished is left alone.
    trained = updates(setting.folder)
    assert run(setting.folder) == 2
    assert updates(setting.folder) == trained
    after = records(setting.folder / "runs")
    assert {name for name in found if found[name] != after[name]} == {
        name for name, record in found.items() if record["status"] == "failed"
    }


def test_interruptions_change_nothing(setting: SimpleNamespace) -> None:
    without(setting, "broken")
    folder = setting.folder
    assert run(folder, "expected") == 0
    (folder / "updates").unlink()

    # The training's process is killed in the second epoch: training and both cells fail.
    (folder / "kill").touch()
    assert run(folder) == 3
    assert "signal 9" in str(records(folder / "runs"))

    # The runner is killed while the training goes on from its checkpoint; the training ends on its own.
    (folder / "slow").touch()
    process = multiprocessing.get_context("forkserver").Process(target=runner(folder, report=print).run)
    process.start()
    wait_for(lambda: len({line.split()[0] for line in updates(folder)}) == 2)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    # Another runner leaves it alone, and stops between two cells.
    def stop(line: str) -> None:
        if line.startswith("Waiting"):
            (folder / "slow").unlink()
        if line.startswith("[1/2 cells, "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner(folder, report=stop).run()
    assert len(list((folder / "runs/cells").glob("*/record.json"))) == 1 + 1  # one of them an old failure
    assert run(folder) == 0
    assert [line.split()[1] for line in updates(folder)] == ["0", "0", "1", "1", "1"]
    assert results(folder / "runs") == results(folder / "expected")


def test_two_runners_at_once(setting: SimpleNamespace) -> None:
    folder = setting.folder
    failed: list[int] = []
    threads = [threading.Thread(target=lambda: failed.append(run(folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [2, 2]
    assert len(updates(folder)) == 4
    logs = [path.read_text() for path in folder.glob("runs/*/*/log.txt")]
    # Each was begun once: the training of two systems, the broken one, and two cells.
    assert len(logs) == 4
    assert sum(log.count("Traceback") for log in logs) == 1
    assert [log.count("Finished evaluating") for log in logs].count(1) == 2
