"""The jobs of a grid: trainings and evaluations."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional


@dataclass(frozen=True)
class Training:
    """
    A config with a seed. Two systems whose configs turn out the same share their trainings.

    # Parameters

    config : `dict[str, Any]`
        What `allennlp train` takes, with nothing left to evaluate.
    hash : `str`
        A hex digest of the config.
    source : `str`
        The file that the config comes from.
    seed : `int`
    environment : `dict[str, str]`
        The variables that the grid sets.
    needs : `Training`, optional (default = `None`)
        The training that this one starts from.
    run : `Path`, optional (default = `None`)
        A finished run, which is taken as it is: nothing is trained.
    """

    config: dict[str, Any]
    hash: str
    source: str
    seed: int
    environment: dict[str, str]
    needs: Optional["Training"] = None
    run: Optional[Path] = None

    @property
    def folder(self) -> Path:
        """Where the job's files are, within the folder of the experiment."""
        return Path("trainings", f"{Path(self.source).stem}-{self.seed}-{self.hash[:12]}")

    @property
    def title(self) -> str:
        return f"training {self.folder.name}"

    @property
    def description(self) -> dict[str, Any]:
        """What a record says of the job."""
        start = self.needs.folder.name if self.needs else None
        return {
            "config": self.source,
            "seed": self.seed,
            "hash": self.hash,
            "start": start,
            "environment": self.environment,
        }


@dataclass(frozen=True)
class Cell:
    """
    One system's result for one target and seed: the evaluation of a training.

    # Parameters

    system : `str`
    target : `str`
    needs : `Training`
        The training that is evaluated.
    file : `str`
        The target's test file.
    overrides : `dict[str, Any]`
        As `-o` of `allennlp evaluate`.
    last : `int`, optional (default = `None`)
        Evaluate the mean of the weights of so many last checkpoints, instead of the weights that are best on
        dev data.
    """

    system: str
    target: str
    needs: Training
    file: str
    overrides: dict[str, Any]
    last: Optional[int] = None

    @property
    def seed(self) -> int:
        return self.needs.seed

    @property
    def hash(self) -> str:
        """A hex digest of all that the result depends on: the training's config, and how it is evaluated."""
        parts = [self.needs.hash, self.file, self.overrides, *([] if self.last is None else [self.last])]
        return digest(json.dumps(parts, sort_keys=True))

    @property
    def folder(self) -> Path:
        """Where the job's files are, within the folder of the experiment."""
        return Path("cells", f"{self.system}-{self.target}-{self.seed}-{self.hash[:12]}")

    @property
    def title(self) -> str:
        return f"{self.system}, {self.target}, seed {self.seed}"

    @property
    def environment(self) -> dict[str, str]:
        return self.needs.environment

    @property
    def description(self) -> dict[str, Any]:
        """What a record says of the job."""
        return {
            "system": self.system,
            "target": self.target,
            "seed": self.seed,
            "hash": self.hash,
            "training": self.needs.folder.name,
            "file": self.file,
            "overrides": self.overrides,
            "last": self.last,
        }


Job = Training | Cell


def digest(text: str) -> str:
    """A hex digest that names what a job depends on."""
    return hashlib.sha256(text.encode()).hexdigest()
