"""How the trainings of a grid went: updates, time, F1 on dev data and loss after each epoch."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

from allennlp_metaner.experiments.exposure import sentences_shown
from allennlp_metaner.experiments.jobs import Cell, Training
from allennlp_metaner.experiments.records import read_record

_DEV_F1, _LOSS = "validation_f1-measure-overall", "training_loss"


class Point(NamedTuple):
    """After an epoch, counted from 1: F1 on dev data in per cent, if any, and mean loss of the batches."""

    epoch: int
    dev_f1: Optional[float]
    loss: float


@dataclass(frozen=True)
class Curve:
    """
    What is known of a training.

    # Parameters

    training : `Training`
    systems : `list[str]`
        The systems that evaluate it. None, if others only start from it.
    record : `dict[str, Any]`, optional
    points : `list[Point]`
        Those of a training that goes on end where it is.
    """

    training: Training
    systems: list[str]
    record: Optional[dict[str, Any]]
    points: list[Point]

    @property
    def epochs(self) -> int:
        """How many the config asks for."""
        return self.training.config["trainer"]["num_epochs"]

    @property
    def updates_per_epoch(self) -> Optional[int]:
        """`None` where the config leaves it to the size of the data."""
        batches = self.training.config["data_loader"].get("batches_per_epoch")
        group = self.training.config["trainer"].get("num_gradient_accumulation_steps", 1)
        return None if batches is None else -(-batches // group)

    def shown(self, epoch: int) -> Optional[int]:
        """Sentences shown after so many epochs, with those of the training that this one starts from."""
        return sentences_shown(self.training, epoch)

    @property
    def best(self) -> Optional[float]:
        return max((f1 for _, f1 in self.dev_f1), default=None)

    @property
    def dev_f1(self) -> list[tuple[int, float]]:
        """Epoch and F1 of the points that have one."""
        return [(point.epoch, point.dev_f1) for point in self.points if point.dev_f1 is not None]


def read_curves(cells: Sequence[Cell], directory: Path) -> list[Curve]:
    """
    # Parameters

    cells : `Sequence[Cell]`
    directory : `Path`
        The folder of the experiment.

    # Returns

    `list[Curve]`
        Of every training that the cells need, in the order of the grid.
    """
    found: dict[Path, tuple[Training, list[str]]] = {}
    for cell in cells:
        _add(found, cell.needs, cell.system)
    return [
        Curve(
            training,
            systems,
            read_record(directory / folder),
            _points(directory / folder / "run"),
        )
        for folder, (training, systems) in found.items()
    ]


def _add(found: dict[Path, tuple[Training, list[str]]], training: Training, system: Optional[str]) -> None:
    if training.needs:
        _add(found, training.needs, None)
    _, systems = found.setdefault(training.folder, (training, []))
    if system is not None and system not in systems:
        systems.append(system)


def _points(run: Path) -> list[Point]:
    points = []
    for path in run.glob("metrics_epoch_*.json"):
        number = re.search(r"(\d+)\.json$", path.name)
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            # AllenNLP is about to write it.
            continue
        if number and _LOSS in metrics:
            dev_f1 = 100 * metrics[_DEV_F1] if _DEV_F1 in metrics else None
            points.append(Point(int(number[1]) + 1, dev_f1, metrics[_LOSS]))
    return sorted(points)
