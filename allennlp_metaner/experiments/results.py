"""What the jobs of a grid have left: scores and predictions of its cells."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple, Optional

import numpy as np
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.analysis.bootstrap import f1, sentence_counts
from allennlp_metaner.experiments.exposure import sentences_shown
from allennlp_metaner.experiments.jobs import Cell
from allennlp_metaner.experiments.records import FINISHED, PREDICTIONS, RECORD, read_record

OVERALL = "overall"
"""Stands for the entities of all types, where else a type stands."""

_F1 = "f1-measure-"
_LONGEST_ERROR = 300


class Scores(NamedTuple):
    """In per cent."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Predictions:
    """
    What a system predicts for a test file.

    # Parameters

    path : `Path`
    counts : `numpy.ndarray`
        Correct, predicted and gold entities of each sentence, shape `(num_sentences, 3)`.
    sentences : `list[bytes]`
        A digest of the words and gold tags of each sentence.
    """

    path: Path
    counts: np.ndarray
    sentences: list[bytes]


@dataclass(frozen=True)
class Result:
    """
    A finished cell.

    # Parameters

    cell : `Cell`
    folder : `Path`
        That of the cell.
    record : `dict[str, Any]`
    """

    cell: Cell
    folder: Path
    record: dict[str, Any]

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """
        By type, in alphabetical order after "overall".

        # Raises

        `ConfigurationError`, if the record has none.
        """
        metrics = self.record.get("metrics", {})
        types = sorted(key.removeprefix(_F1) for key in metrics if key.startswith(_F1))
        if OVERALL not in types:
            raise ConfigurationError(
                f"{self.folder / RECORD}: no metric {_F1}{OVERALL}, but {', '.join(metrics) or 'none'}: "
                "evaluate with the metric 'conll_span_f1'"
            )
        return {
            name: Scores(*(100 * metrics[key + name] for key in ("precision-", "recall-", _F1)))
            for name in sorted(types, key=lambda name: (name != OVERALL, name))
        }

    @cached_property
    def predictions(self) -> Optional[Predictions]:
        """
        `None`, if the cell has left none.

        # Raises

        `ConfigurationError`, if the file has a bad line, or its F1 is not that of the record.
        """
        path = self.folder / PREDICTIONS
        if not path.is_file():
            return None
        found = _read_predictions(path)
        measured = 100 * float(f1(found.counts.sum(0)))
        if abs(measured - self.scores[OVERALL].f1) > 1e-6:
            raise ConfigurationError(
                f"{path} has F1 {measured:.4f}, but {RECORD} beside it {self.scores[OVERALL].f1:.4f}: they "
                "are not of one evaluation; remove their folder and run the experiment again"
            )
        return found


class Results:
    """
    The cells of a grid, and what is known of them.

    # Parameters

    cells : `Sequence[Cell]`
    directory : `Path`
        The folder of the experiment.

    # Attributes

    systems : `list[str]`
    targets : `list[str]`
        In the order of the grid.
    finished : `list[Result]`
    missing : `list[tuple[Cell, str]]`
        The other cells, and why they have no result.
    """

    def __init__(self, cells: Sequence[Cell], directory: Path) -> None:
        self.cells = cells
        self.directory = directory
        self.systems = list(dict.fromkeys(cell.system for cell in cells))
        self.targets = list(dict.fromkeys(cell.target for cell in cells))
        self.finished: list[Result] = []
        self.missing: list[tuple[Cell, str]] = []
        for cell in cells:
            record = read_record(directory / cell.folder)
            if record is not None and record["status"] == FINISHED:
                self.finished.append(Result(cell, directory / cell.folder, record))
            else:
                self.missing.append((cell, status(record)))

    def of(self, system: str, target: str) -> list[Result]:
        """The finished cells of a system and a target."""
        return [
            result for result in self.finished if (result.cell.system, result.cell.target) == (system, target)
        ]

    def targets_of(self, system: str) -> tuple[str, ...]:
        """What the grid asks for, finished or not."""
        return tuple(dict.fromkeys(cell.target for cell in self.cells if cell.system == system))

    @cached_property
    def shown(self) -> dict[str, Optional[int]]:
        """The sentences that each system's training showed, where it is known."""
        return {cell.system: sentences_shown(cell.needs) for cell in reversed(self.cells)}

    @cached_property
    def plain(self) -> set[str]:
        """The systems that are trained without tasks and label without adaptation."""
        return {
            cell.system
            for cell in self.cells
            if cell.needs.config["trainer"].get("type") != "meta"
            and cell.overrides.get("model.adaptation.enabled") is False
        }

    def f1(self, system: str, target: str, type_: str = OVERALL) -> dict[int, float]:
        """F1 by seed, in per cent, of those seeds that have such entities."""
        return {
            result.cell.seed: result.scores[type_].f1
            for result in self.of(system, target)
            if type_ in result.scores
        }


def status(record: Optional[dict[str, Any]]) -> str:
    """What a record, or its absence, says of a job, in one line."""
    if record is None:
        return "no record"
    if record["status"] == FINISHED:
        return FINISHED
    return shorten(f"{record['status']}: {record.get('error', '')}", _LONGEST_ERROR)


def _read_predictions(path: Path) -> Predictions:
    counts, sentences = [], []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                sentence = json.loads(line)
                words, gold = sentence["words"], sentence["gold"]
                counts.append(sentence_counts(gold, sentence["predicted"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigurationError(
                    f"{path}:{number}: not a line of words, gold and predicted tags ({error}); remove the "
                    "folder and run the experiment again"
                ) from error
            sentences.append(hashlib.blake2b(json.dumps([words, gold]).encode(), digest_size=8).digest())
    return Predictions(path, np.array(counts, dtype=np.int64).reshape(-1, 3), sentences)
