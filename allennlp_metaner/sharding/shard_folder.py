"""A folder of numbered shards, each of which is there whole or not at all."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from filelock import FileLock, Timeout

from allennlp_metaner.atomic import check_writable, write_json, write_whole

JOB, MANIFEST, LOCK = "job.json", "manifest.json", ".lock"


@dataclass(frozen=True)
class ShardFolder:
    """
    The shards of a job, which several processes may write:

        job.json          what the shards depend on, so that an interrupted job can be told from another one
        000000.jsonl      the first shard, 000001.jsonl the second one, and so on
        manifest.json     written last: where it is, the folder is complete

    # Parameters

    path : `Path`
    ending : `str`
        Of the shards' names, without the full stop.
    """

    path: Path
    ending: str

    def file(self, shard: int) -> Path:
        """Where a shard is, or will be."""
        return self.path / f"{shard:06d}.{self.ending}"

    def write(self, shard: int, content: bytes) -> None:
        """Write a shard, which appears when it is complete."""
        write_whole(self.file(shard), content)

    def done(self) -> frozenset[int]:
        """The numbers of the shards that are there."""
        files = self.path.glob(f"[0-9]*.{self.ending}")
        return frozenset(int(file.stem) for file in files if file.stem.isdecimal())

    @property
    def manifest(self) -> Optional[dict[str, Any]]:
        """What [`finish`](#finish) wrote; `None`, if the job is not finished."""
        return _read_json(self.path / MANIFEST)

    @contextmanager
    def job(self, description: dict[str, Any], anew: bool = False) -> Iterator[None]:
        """
        A context in which this process, and the workers that it started, are the only ones to write here.

        # Parameters

        description : `dict[str, Any]`
            What the shards depend on; must be JSON.
        anew : `bool`, optional (default = `False`)
            Whether what is there of this or another job is removed.

        # Raises

        `ConfigurationError`, if another process is at work here, or if the folder has shards of another job.
        """
        check_writable(self.path / JOB)
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigurationError(
                f"{self.path}: another process is writing to this folder. Wait for it, or give another folder"
            ) from error
        try:
            if anew:
                self._remove()
            self._begin(json.loads(json.dumps(description)))
            yield
        finally:
            lock.release()

    def finish(self, manifest: dict[str, Any]) -> None:
        """
        Write the manifest.

        # Raises

        `RuntimeError`, if a shard before the last one is missing.
        """
        missing = frozenset(range(len(self.done()))) - self.done()
        if missing:
            raise RuntimeError(f"{self.path}: shards are missing: {sorted(missing)[:10]}")
        self._remove_leftovers()
        write_json(self.path / MANIFEST, manifest)

    def _begin(self, description: dict[str, Any]) -> None:
        self._remove_leftovers()
        begun = _read_json(self.path / JOB)
        if begun is None:
            if self.done():
                raise ConfigurationError(
                    f"{self.path} has files of the shards' names, but no {JOB}: give another folder"
                )
            write_json(self.path / JOB, description)
        elif begun != description:
            keys = [key for key in {**begun, **description} if begun.get(key) != description.get(key)]
            changed = ", ".join(f"{key} ({begun.get(key)}, now {description.get(key)})" for key in keys)
            raise ConfigurationError(
                f"{self.path} has shards of another job: {changed[:500]}. Give the same to finish it, give "
                "another folder, or begin anew (--force)"
            )

    def _remove(self) -> None:
        for name in (MANIFEST, JOB):
            (self.path / name).unlink(missing_ok=True)
        for shard in self.done():
            self.file(shard).unlink()

    def _remove_leftovers(self) -> None:
        """Remove what killed processes were writing."""
        for leftover in self.path.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)


def _read_json(path: Path) -> Optional[dict[str, Any]]:
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content
