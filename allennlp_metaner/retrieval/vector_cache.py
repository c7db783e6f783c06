"""Vectors on disk, so that a corpus is encoded once; and directories that are complete or not there."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from allennlp.common.checks import ConfigurationError
from filelock import FileLock, Timeout

from allennlp_metaner.atomic import whole_directory
from allennlp_metaner.file_hash import file_hash

logger = logging.getLogger(__name__)

T = TypeVar("T")

METADATA = "metadata.json"
"""The file whose presence means that a directory is complete. It is written last."""

_VECTORS = "vectors.npy"


def cache_key(sentences: Sequence[Sequence[str]], encoder_fingerprint: str) -> str:
    """A hex digest of the sentences, word by word and in order, and of the encoder."""
    digest = hashlib.sha256(json.dumps(encoder_fingerprint).encode())
    for words in sentences:
        # JSON quotes the words and escapes line breaks, so different sentences never look the same.
        digest.update(b"\n" + json.dumps(list(words)).encode())
    return digest.hexdigest()


class DirectoryCache(Generic[T]):
    """
    Things that take long to compute, on disk: each in a directory `directory/KEY`, with a `metadata.json`
    that has checksums. Subclasses say how a thing is written and read.

    An entry appears by renaming a complete directory; an interrupted write leaves nothing that could be
    taken for one, and its remains are removed by the next write. A damaged entry is noticed, reported in
    the log and replaced. Of several processes that want the same entry, one computes it while the others
    wait. Where the directory cannot be written, a warning is logged and nothing is cached.

    # Parameters

    directory : `str` or `os.PathLike`, optional (default = `None`)
        If `None`, the environment variable `METANER_CACHE`, or else `~/.cache/allennlp_metaner`.
    """

    plural = "things"
    """What is cached, for messages."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        default = os.environ.get("METANER_CACHE") or "~/.cache/allennlp_metaner"
        self.directory = Path(directory or default).expanduser()

    def get_or_compute(self, key: str, compute: Callable[[], T]) -> T:
        """
        The thing stored under `key`, or else what `compute` returns, which is then stored.

        # Parameters

        key : `str`
            A file name: see [`cache_key`](#cache_key).
        compute : `Callable[[], T]`

        # Returns

        `T`
        """
        found = self._load(key)
        if found is not None:
            return found
        with self._exclusive(key) as writable:
            # Another process may have stored it while this one waited.
            found = self._load(key) if writable else None
            if found is None:
                found = compute()
                if writable:
                    self._store(key, found)
        return found

    def _describe(self, content: T) -> dict[str, Any]:
        """What else the metadata file holds of a thing; must be JSON."""
        raise NotImplementedError

    def _write(self, entry: Path, content: T) -> None:
        """Write a thing to a new directory."""
        raise NotImplementedError

    def _read(self, entry: Path, metadata: dict[str, Any]) -> T:
        """Read a thing; a `ValueError` or `KeyError`, if the metadata does not describe it."""
        raise NotImplementedError

    def _load(self, key: str) -> T | None:
        entry = self.directory / key
        try:
            return self._read(entry, read_metadata(entry))
        except FileNotFoundError as error:
            if entry.exists():
                logger.warning(
                    "The cached %s in %s are incomplete and will be replaced: %s", self.plural, entry, error
                )
        except (OSError, ValueError, KeyError) as error:
            logger.warning(
                "The cached %s in %s are damaged and will be replaced: %s", self.plural, entry, error
            )
        return None

    def _store(self, key: str, content: T) -> None:
        try:
            with new_directory(self.directory / key, **self._describe(content)) as entry:
                self._write(entry, content)
        except (OSError, ConfigurationError) as error:
            logger.warning("The %s could not be cached in %s: %s", self.plural, self.directory, error)

    @contextmanager
    def _exclusive(self, key: str) -> Iterator[bool]:
        """Keep other processes from writing `key`. Yields `False` if the directory cannot be written."""
        lock = FileLock(self._lock_file(key))
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            logger.warning(
                "%s are not cached: the directory %s cannot be written: %s",
                self.plural.capitalize(),
                self.directory,
                error,
            )
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _remove_leftovers(self) -> None:
        """Remove what killed processes were writing. A live one holds the lock of the entry it writes."""
        for leftover in self.directory.glob(".*.tmp"):
            key = leftover.name.split(".")[1]
            with suppress(Timeout), FileLock(self._lock_file(key), timeout=0):
                shutil.rmtree(leftover, ignore_errors=True)

    def _lock_file(self, key: str) -> str:
        return str(self.directory / f"{key}.lock")


class VectorCache(DirectoryCache[np.ndarray]):
    """Arrays on disk: `directory/KEY/vectors.npy`, see [`DirectoryCache`](#directorycache)."""

    plural = "vectors"

    def _describe(self, content: np.ndarray) -> dict[str, Any]:
        return {"shape": list(content.shape), "dtype": str(content.dtype)}

    def _write(self, entry: Path, content: np.ndarray) -> None:
        np.save(entry / _VECTORS, content, allow_pickle=False)

    def _read(self, entry: Path, metadata: dict[str, Any]) -> np.ndarray:
        vectors: np.ndarray = np.load(entry / _VECTORS, allow_pickle=False)
        if self._describe(vectors) != {key: metadata[key] for key in ("shape", "dtype")}:
            raise ValueError("the shape or type of the array is not that of the metadata")
        return vectors


@contextmanager
def new_directory(target: Path, **metadata: Any) -> Iterator[Path]:
    """
    Write a directory that, whatever happens, is either complete or not there; an old one is replaced.

    The block writes its files into the directory that is yielded. Afterwards their checksums and `metadata`
    are written to a metadata file, and the directory is renamed to `target`.

    # Parameters

    target : `Path`
        The directory. Its parent is made if it is missing.
    metadata : `Any`
        What else the metadata file holds; must be JSON.

    # Raises

    `ConfigurationError`, if it cannot be written, see
    [`whole_directory`](../atomic.md#whole_directory).
    """
    with whole_directory(target, replace=True) as complete:
        yield complete
        checksums = {path.name: file_hash(path) for path in sorted(complete.iterdir())}
        (complete / METADATA).write_text(json.dumps({**metadata, "sha256": checksums}), encoding="utf-8")


def read_metadata(directory: Path) -> dict[str, Any]:
    """
    The metadata of a directory that [`new_directory`](#new_directory) wrote.

    # Raises

    `FileNotFoundError`, if it is not there or incomplete; `ValueError`, if a file has another content than
    was written.
    """
    metadata = json.loads((directory / METADATA).read_text(encoding="utf-8"))
    if not isinstance(metadata, dict) or not isinstance(metadata.get("sha256"), dict):
        raise ValueError(f"{directory / METADATA} does not hold checksums")
    for name, checksum in metadata["sha256"].items():
        if file_hash(directory / name) != checksum:
            raise ValueError(f"the checksum of {directory / name} is wrong")
    return metadata
