"""What the runner of a grid tells: how far it is, how long it will take, and what came out."""

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.experiments.jobs import Cell, Job, Training
from allennlp_metaner.experiments.records import FINISHED, read_record

_F1 = "f1-measure-overall"


class Progress:
    """
    # Parameters

    jobs : `Sequence[Job]`
        All of them, done or not.
    directory : `Path`
        The folder of the experiment.
    """

    def __init__(self, jobs: Sequence[Job], directory: Path) -> None:
        self._jobs = jobs
        self._directory = directory
        self._start = time.monotonic()

    def __str__(self) -> str:
        """Finished cells, time since the start, and time that the rest will take, if that can be told."""
        cells = [job for job in self._jobs if isinstance(job, Cell)]
        done = sum(self._finished(cell) is not None for cell in cells)
        parts = [f"{done}/{len(cells)} cells", _duration(time.monotonic() - self._start)]
        left = self.seconds_left()
        if left:
            parts.append(f"about {_duration(left)} left")
        return f"[{', '.join(parts)}]"

    def seconds_left(self) -> Optional[float]:
        """
        The time that unfinished jobs will take one after the other, if each takes as long as the finished
        ones of its kind on average. `None`, if there is none of a kind yet.
        """
        left = 0.0
        for kind in (Training, Cell):
            records = {job.folder: self._finished(job) for job in self._jobs if isinstance(job, kind)}
            seconds = [record["seconds"] for record in records.values() if record and _took_time(record)]
            unfinished = sum(record is None for record in records.values())
            if unfinished and not seconds:
                return None
            left += unfinished * fmean(seconds or [0])
        return left

    def result(self, job: Job) -> str:
        """What came out of a finished job, in a line."""
        record = self._finished(job) or {}
        name, key = ("F1", _F1) if isinstance(job, Cell) else ("best dev F1", f"best_validation_{_F1}")
        value = record.get("metrics", {}).get(key)
        score = "" if value is None else f", {name} {100 * value:.2f}"
        return f"{job.title} finished in {_duration(record.get('seconds', 0))}{score}"

    def _finished(self, job: Job) -> Optional[dict[str, Any]]:
        record = read_record(self._directory / job.folder)
        return record if record and record["status"] == FINISHED else None


def check_files(jobs: Sequence[Job]) -> None:
    """
    # Parameters

    jobs : `Sequence[Job]`
        Those that are to be done.

    # Raises

    `ConfigurationError`, if data that one of them reads is not there. Addresses are not looked up.
    """
    needed: dict[str, str] = {}
    for job in jobs:
        if isinstance(job, Cell):
            paths = [job.file]
        elif job.run:
            paths = [str(job.run)]
        else:
            paths = [job.config.get(f"{part}_data_path") or "" for part in ("train", "validation")]
        for path in paths:
            if path and "://" not in path and not Path(path).exists():
                needed.setdefault(path, job.title)
    if needed:
        missing = "".join(f"\n  {path} (for {title})" for path, title in needed.items())
        raise ConfigurationError(
            f"{len(needed)} files of the grid are missing:{missing}\nNothing was started. Put them there, "
            "set METANER_DATA to the folder of the corpora, or take these targets out of the grid"
        )


def _took_time(record: dict[str, Any]) -> bool:
    """A finished run that was taken as it is says nothing of how long training takes."""
    return "seconds" in record and not record.get("adopted")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
