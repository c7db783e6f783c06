"""Does the jobs of a grid that are not done yet, next to other runners that do the same."""

import json
import logging
import multiprocessing
import os
import shlex
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Optional

import torch
from allennlp.commands.evaluate import evaluate_from_archive
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import import_module_and_submodules
from filelock import FileLock, Timeout

from allennlp_metaner.experiments.averaging import last_checkpoints, mean_weights
from allennlp_metaner.experiments.jobs import Cell, Job, Training
from allennlp_metaner.experiments.progress import Progress, check_files
from allennlp_metaner.experiments.records import (
    FAILED,
    FINISHED,
    PREDICTIONS,
    read_record,
    write_json,
    write_record,
)
from allennlp_metaner.experiments.resuming import train_or_resume
from allennlp_metaner.idle_threads import watch_for_contention

_Record = Optional[dict[str, Any]]


class ExperimentRunner:
    """
    Trains and evaluates what a grid asks for and has no record yet, each job in a process of its own. In the
    folder of the experiment, every job has a folder: `trainings/NAME` and `cells/NAME`, with

    - `record.json`: what was done, and what came out; see [`records`](./records.md);
    - `log.txt`: what the job printed, over all attempts;
    - `lock`, which belongs to the process that does the job. So several runners, on several machines that
      share the folder, do nothing twice, and a job goes on, undisturbed, whose runner was killed;
    - for trainings, `config.json` and `run`, the serialization directory;
    - for cells, `predictions.jsonl`, see [`SentenceSerializer`](../evaluation/sentence_serializer.md).

    A training that was interrupted continues from its last checkpoint. A job that failed is tried again by
    the next runner, but not by one that saw it fail.

    # Parameters

    cells : `Sequence[Cell]`
    directory : `Path`
        The folder of the experiment; it is created if need be.
    packages : `Sequence[str]`, optional (default = `("allennlp_metaner",)`)
        As `--include-package` of `allennlp`.
    report : `Callable[[str], None]`, optional (default = `print`)
        Takes the lines that tell how things are going; the default prints them at once.
    poll_seconds : `float`, optional (default = `10.0`)
        How often to look for what other runners are doing when nothing else is left.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        directory: Path,
        packages: Sequence[str] = ("allennlp_metaner",),
        report: Callable[[str], None] = partial(print, flush=True),
        poll_seconds: float = 10.0,
    ) -> None:
        self._directory = directory.resolve()
        if "," in str(self._directory):
            raise ConfigurationError(
                f"{self._directory}: AllenNLP takes a file name with a comma for two. Give another folder"
            )
        self._packages = list(packages)
        self._report = report
        self._poll_seconds = poll_seconds
        # A dict keeps the order, and each job once.
        self._jobs = list({job.folder: job for cell in cells for job in _with_needs(cell)}.values())
        self._before = {job.folder: self._record(job) for job in self._jobs}
        self.progress = Progress(self._jobs, self._directory)
        # Forked from a process that has imported everything, but neither computed nor touched a GPU: a job
        # starts at once, and clean.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([__name__, *self._packages])

    def pending(self) -> list[Job]:
        """What is to be done, in the order in which it will be."""
        return [job for job in self._jobs if self._status(job) is None]

    def run(self) -> list[Job]:
        """
        Do all that is to be done, and return the jobs that failed.

        # Raises

        `ConfigurationError`, before anything is done, if data that is needed is not there.
        """
        pending = self.pending()
        check_files(pending)
        waiting = False
        while pending:
            left = [job for job in pending if self._attempt(job) is None]
            if len(left) == len(pending):
                if not waiting:
                    self._report(f"Waiting for what others do: {', '.join(job.title for job in left)}")
                time.sleep(self._poll_seconds)
            waiting = len(left) == len(pending)
            pending = left
        return [job for job in self._jobs if self._status(job) == FAILED]

    def _attempt(self, job: Job) -> Optional[str]:
        """The status of the job after doing it, if that is possible now."""
        needed = self._status(job.needs) if job.needs else FINISHED
        if needed is None or self._status(job):
            return self._status(job)
        if needed == FAILED:
            self._fail(job, f"it needs the {job.needs.title}, which failed")  # type: ignore[union-attr]
        else:
            self._report(f"{self.progress} {job.title}")
            self._work(job)
        status = self._status(job)
        if status == FINISHED:
            self._report(f"{self.progress} {self.progress.result(job)}")
        if status == FAILED:
            self._report(f"{self.progress} {job.title} FAILED: {self._record(job)['error']}")  # type: ignore[index]
        return status

    def _work(self, job: Job) -> None:
        process = self._processes.Process(
            target=_work,
            args=(
                job,
                self._directory,
                self._before[job.folder],
                self._packages,
                dict(os.environ),
                torch.get_num_threads(),
            ),
        )
        process.start()
        try:
            process.join()
        finally:
            # If this process was told to stop, so is the job. A killed training loses what came after its
            # last checkpoint; one that is asked to end would pack an archive first.
            process.kill()
            process.join()
        if process.exitcode:
            end = f"signal {-process.exitcode}" if process.exitcode < 0 else f"exit status {process.exitcode}"
            self._fail(job, f"its process ended with {end}")

    def _fail(self, job: Job, error: str) -> None:
        folder = self._directory / job.folder
        with _claim(folder, self._before[job.folder]) as claimed:
            if claimed:
                write_record(folder, job.description, time.time(), {"status": FAILED, "error": error})

    def _record(self, job: Job) -> _Record:
        return read_record(self._directory / job.folder)

    def _status(self, job: Job) -> Optional[str]:
        record = self._record(job)
        # An old failure is no reason not to try.
        if record is None or (record["status"] == FAILED and record == self._before[job.folder]):
            return None
        return record["status"]


def _with_needs(job: Job) -> Iterator[Job]:
    if job.needs:
        yield from _with_needs(job.needs)
    yield job


@contextmanager
def _claim(folder: Path, before: _Record) -> Iterator[bool]:
    """Keep others from a job. Yields `False` if one is at it, or has been since `before` was read."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    with suppress(Timeout):
        lock.acquire(timeout=0)
    try:
        yield lock.is_locked and read_record(folder) == before
    finally:
        lock.release()


def _work(
    job: Job,
    directory: Path,
    before: _Record,
    packages: Sequence[str],
    environment: dict[str, str],
    num_threads: int,
) -> None:
    """Do a job, unless others do or did it, and leave its record. Runs in a process of its own."""
    folder = directory / job.folder
    # One thread is what a forked process is left with, in case its parent has computed. This one's has not.
    torch.set_num_threads(num_threads)
    watch_for_contention()
    with _claim(folder, before) as claimed:
        if not claimed:
            return
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            for output in (1, 2):
                os.dup2(log.fileno(), output)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(name)s - %(message)s")
        os.environ.update({**environment, **job.environment})
        started = time.time()
        try:
            for package in packages:
                import_module_and_submodules(package)
            outcome = _train(job, folder) if isinstance(job, Training) else _evaluate(job, folder, directory)
            command = [
                *outcome["command"],
                *(part for name in packages for part in ("--include-package", name)),
            ]
            outcome.update(status=FINISHED, command=shlex.join(command))
        except Exception as error:
            traceback.print_exc()
            outcome = {"status": FAILED, "error": f"{type(error).__name__}: {error}"}
        write_record(folder, job.description, started, outcome)


def _train(training: Training, folder: Path) -> dict[str, Any]:
    run, config = folder / "run", folder / "config.json"
    if training.run:
        return _adopt(training.run, run)
    write_json(config, training.config)
    recover = train_or_resume(training.config, run)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return {
        "command": ["allennlp", "train", str(config), "-s", "NEW_RUN"],
        "recovered": recover,
        "metrics": metrics,
    }


def _adopt(finished: Path, run: Path) -> dict[str, Any]:
    """A link to a finished run in place of one of our own."""
    metrics = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))
    run.unlink(missing_ok=True)
    run.symlink_to(finished, target_is_directory=True)
    return {"command": ["ln", "-s", str(finished), "NEW_RUN"], "adopted": True, "metrics": metrics}


def _evaluate(cell: Cell, folder: Path, directory: Path) -> dict[str, Any]:
    run = directory / cell.needs.folder / "run"
    # A run that packed no archive can be loaded as well.
    archive = str(run / "model.tar.gz" if (run / "model.tar.gz").exists() else run)
    overrides = json.dumps({**cell.overrides, "evaluation.batch_serializer": {"type": "sentences"}})
    predictions = str(folder / PREDICTIONS)
    device = 0 if torch.cuda.is_available() else -1
    with _weights(run, cell.last) as weights:
        metrics = evaluate_from_archive(
            archive,
            # In quotes, since AllenNLP takes a bare name with a comma for two files.
            json.dumps(cell.file),
            cmd_overrides=overrides,
            cuda_device=device,
            predictions_output_file=predictions,
            weights_file=weights,  # type: ignore[arg-type]
            file_friendly_logging=True,
        )
    options = ["-o", overrides, "--cuda-device", str(device), "--predictions-output-file", "NEW_FILE"]
    if cell.last:
        # As an archive of its own: metaner-average writes it.
        archive = f"AVERAGE_OF_LAST_{cell.last}_OF_{run}"
    return {"command": ["allennlp", "evaluate", archive, cell.file, *options], "metrics": metrics}


@contextmanager
def _weights(run: Path, last: Optional[int]) -> Iterator[Optional[str]]:
    """A file with the mean of the last checkpoints, while it is needed; `None`: the archive's own weights."""
    if last is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.th")
        torch.save(mean_weights(last_checkpoints(run, last)), path)
        yield str(path)
