"""Whenever a run is killed, what is found afterwards is complete."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.training import Checkpointer
from allennlp.training.trainer import TrainerCheckpoint

from allennlp_metaner.training.atomic_checkpointer import AtomicCheckpointer


class KilledError(Exception):
    pass


class FakeTrainer:
    """All that a checkpointer asks of a trainer. Its weights tell when they were saved."""

    def __init__(self) -> None:
        self.epochs, self.batches = 0, 0

    def get_checkpoint_state(self) -> TrainerCheckpoint:
        return TrainerCheckpoint(
            {"weight": torch.tensor([float(self.epochs), float(self.batches)])},
            {"epochs_completed": self.epochs, "batches_in_epoch_completed": self.batches, "version": 1},
        )

    def at(self, epochs: int, batches: int) -> Any:
        self.epochs, self.batches = epochs, batches
        return self


@pytest.fixture
def checkpointer(tmp_path: Path) -> AtomicCheckpointer:
    return AtomicCheckpointer(tmp_path)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def files(*points: str) -> set[str]:
    return {f"{kind}_state_{point}.th" for kind in ("model", "training") for point in points}


def test_from_params(tmp_path: Path) -> None:
    config = {"type": "atomic", "keep_most_recent_by_count": 3, "save_every_num_batches": 7}
    checkpointer = Checkpointer.from_params(Params(config), serialization_dir=str(tmp_path))
    assert isinstance(checkpointer, AtomicCheckpointer)
    assert checkpointer._keep_most_recent_by_count == 3


def test_saves_and_loads(checkpointer: AtomicCheckpointer, tmp_path: Path) -> None:
    assert checkpointer.load_checkpoint() is None
    checkpointer.save_checkpoint(FakeTrainer().at(1, 20))
    assert names(tmp_path) == files("e1_b20")
    loaded = checkpointer.load_checkpoint()
    assert loaded is not None
    assert loaded.model_state["weight"].tolist() == [1.0, 20.0]
    assert loaded.trainer_state["batches_in_epoch_completed"] == 20


def test_writes_the_same_files_as_the_default(tmp_path: Path) -> None:
    """Either can read what the other wrote."""
    for kind, name in ((Checkpointer, "default"), (AtomicCheckpointer, "atomic")):
        (tmp_path / name).mkdir()
        kind(tmp_path / name).save_checkpoint(FakeTrainer().at(0, 5))
    assert names(tmp_path / "default") == names(tmp_path / "atomic")
    default_reads = Checkpointer(tmp_path / "atomic").load_checkpoint()
    atomic_reads = AtomicCheckpointer(tmp_path / "default").load_checkpoint()
    assert default_reads is not None
    assert atomic_reads is not None
    assert torch.equal(default_reads.model_state["weight"], atomic_reads.model_state["weight"])


def test_keeps_the_latest(checkpointer: AtomicCheckpointer, tmp_path: Path) -> None:
    for epochs, batches in ((0, 5), (0, 10), (1, 0)):
        checkpointer.save_checkpoint(FakeTrainer().at(epochs, batches))
    assert names(tmp_path) == files("e0_b10", "e1_b0")


def test_saves_at_the_configured_times(tmp_path: Path) -> None:
    checkpointer = AtomicCheckpointer(tmp_path, save_every_num_batches=2)
    trainer = FakeTrainer()
    saved = [checkpointer.maybe_save_checkpoint(trainer.at(0, b), 0, b) for b in range(1, 6)]
    assert saved == [False, True, False, True, False]
    assert checkpointer.maybe_save_checkpoint(trainer.at(1, 0), 1, 0)


@pytest.mark.parametrize("kill_at", range(6))
def test_killed_at_any_moment(
    checkpointer: AtomicCheckpointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    """Before, during and after the writing of each of the two files."""
    checkpointer.save_checkpoint(FakeTrainer().at(0, 5))
    moments: list[int] = []

    def moment() -> None:
        moments.append(len(moments))
        if moments[-1] == kill_at:
            raise KilledError

    save, replace = torch.save, os.replace

    def slow_save(state: Any, file: Any) -> None:
        moment()
        file.write(b"half")
        file.flush()
        moment()
        file.seek(0)
        save(state, file)

    def slow_replace(source: str, target: str) -> None:
        moment()
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(torch, "save", slow_save)
        patch.setattr(os, "replace", slow_replace)
        checkpointer.save_checkpoint(FakeTrainer().at(0, 10))
    recovered = AtomicCheckpointer(tmp_path)
    loaded = recovered.load_checkpoint()
    assert loaded is not None
    assert loaded.model_state["weight"].tolist() == [0.0, 5.0]
    # The run goes on, and cleans up.
    recovered.save_checkpoint(FakeTrainer().at(0, 10))
    assert names(tmp_path) == files("e0_b5", "e0_b10")
    loaded = recovered.load_checkpoint()
    assert loaded is not None
    assert loaded.model_state["weight"].tolist() == [0.0, 10.0]


@pytest.mark.parametrize("kind", ["model", "training"])
def test_half_a_checkpoint_is_not_found_and_removed(
    checkpointer: AtomicCheckpointer, tmp_path: Path, kind: str
) -> None:
    """Left behind by AllenNLP's own checkpointer, or by a kill during the removal of an old checkpoint."""
    checkpointer.save_checkpoint(FakeTrainer().at(0, 5))
    (tmp_path / f"{kind}_state_e0_b10.th").write_bytes(b"half")
    latest = checkpointer.find_latest_checkpoint()
    assert latest is not None
    assert [Path(path).name for path in latest] == ["model_state_e0_b5.th", "training_state_e0_b5.th"]
    checkpointer.save_checkpoint(FakeTrainer().at(0, 20))
    assert names(tmp_path) == files("e0_b5", "e0_b20")


def test_what_a_kill_leaves_is_removed(checkpointer: AtomicCheckpointer, tmp_path: Path) -> None:
    for kind in ("model", "training"):
        leftover = tmp_path / f".{kind}_state_e0_b5.th.abc123.tmp"
        leftover.mkdir()
        (leftover / f"{kind}_state_e0_b5.th").write_bytes(b"half")
    assert checkpointer.find_latest_checkpoint() is None
    checkpointer.save_checkpoint(FakeTrainer().at(0, 10))
    assert names(tmp_path) == files("e0_b10")


def test_a_full_disk(
    checkpointer: AtomicCheckpointer,
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    checkpointer.save_checkpoint(FakeTrainer().at(0, 5))
    trainer = FakeTrainer().at(0, 10)
    trainer.get_checkpoint_state = lambda: TrainerCheckpoint(
        {"weight": torch.zeros(1 << 16)}, {"epochs_completed": 0, "batches_in_epoch_completed": 10}
    )
    with (
        full_disk(1 << 15),
        pytest.raises(ConfigurationError, match=r"model_state_e0_b10\.th: cannot.*--recover"),
    ):
        checkpointer.save_checkpoint(trainer)
    # One half without the other does not count, and goes away with the next checkpoint.
    assert names(tmp_path) == files("e0_b5") | {"training_state_e0_b10.th"}
    latest = checkpointer.find_latest_checkpoint()
    assert latest is not None
    assert Path(latest[0]).name == "model_state_e0_b5.th"
    checkpointer.save_checkpoint(FakeTrainer().at(0, 20))
    assert names(tmp_path) == files("e0_b5", "e0_b20")


def test_leaves_other_files_alone(checkpointer: AtomicCheckpointer, tmp_path: Path) -> None:
    others = {"best.th", "config.json", "weights.th.tmp", "model_state_of_mine.th"}
    for name in others:
        (tmp_path / name).write_text("mine")
    checkpointer.save_checkpoint(FakeTrainer().at(0, 5))
    assert names(tmp_path) == others | files("e0_b5")


def test_a_hard_link_to_a_checkpoint_stays(checkpointer: AtomicCheckpointer, tmp_path: Path) -> None:
    """AllenNLP makes best.th a link to the model state."""
    checkpointer.save_checkpoint(FakeTrainer().at(1, 0))
    (tmp_path / "best.th").hardlink_to(tmp_path / "model_state_e1_b0.th")
    for epochs in (2, 3, 4):
        checkpointer.save_checkpoint(FakeTrainer().at(epochs, 0))
    assert torch.load(tmp_path / "best.th")["weight"].tolist() == [1.0, 0.0]


def test_a_checkpoint_is_written_once(checkpointer: AtomicCheckpointer, tmp_path: Path) -> None:
    checkpointer.save_checkpoint(FakeTrainer().at(1, 0))
    before = (tmp_path / "model_state_e1_b0.th").stat().st_mtime_ns
    checkpointer.save_checkpoint(FakeTrainer().at(1, 0))
    assert (tmp_path / "model_state_e1_b0.th").stat().st_mtime_ns == before
