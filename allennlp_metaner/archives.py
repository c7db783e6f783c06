"""Archives that are whole when they appear, are what they were when they are loaded, and cannot run code."""

import gzip
import hashlib
import json
import logging
import os
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional, Union

from allennlp.commands import train
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.models import Archive, archival

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
"""The file of an archive with the SHA-256 checksum of every other file in it."""

ALLOWED_TYPES = "METANER_ALLOWED_TYPES"
"""The environment variable with the types, apart by commas, that archives may name by their Python path."""

_DAMAGED = (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error)


def archive_model(
    serialization_dir: Union[str, os.PathLike[str]],
    weights: str = archival._DEFAULT_WEIGHTS,
    archive_path: Union[str, os.PathLike[str], None] = None,
    include_in_archive: Optional[list[str]] = None,
) -> str:
    """
    AllenNLP's `archive_model`, but the archive appears under its name when it is complete, and carries the
    checksums of its files. `allennlp train` calls this one once the package is imported.

    The parameters are AllenNLP's.

    # Returns

    `str`
        The path of the archive.

    # Raises

    `ConfigurationError`, if the archive cannot be written. Nothing is left of it then.
    """
    directory = Path(serialization_dir)
    target = Path(archive_path or directory)
    target = target / "model.tar.gz" if target.is_dir() else target
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    checksums = directory / CHECKSUMS
    included = include_in_archive or []
    try:
        checksums.write_text(json.dumps(_checksums_to_be(directory, Path(weights), included)), "utf-8")
        _archive_model(directory, weights, temporary, [*included, CHECKSUMS])
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise ConfigurationError(
            f"{target}: the archive cannot be written ({error}). Make room or give another folder; the run "
            "is not lost, `allennlp train --recover` makes the archive from its last checkpoint"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        # Later training would change files that it speaks of.
        checksums.unlink(missing_ok=True)
    return str(target)


_archive_model = archival.archive_model
# AllenNLP has no other place for this.
train.archive_model = archive_model


def load_archive(
    archive_file: Union[str, os.PathLike[str]],
    cuda_device: int = -1,
    overrides: Union[str, dict[str, Any]] = "",
    weights_file: Optional[str] = None,
    allowed_types: Optional[Sequence[str]] = None,
) -> Archive:
    """
    AllenNLP's `load_archive` for archives that need not be trusted. What is read of the archive is data: its
    config names registered types only, its members are unpacked into a temporary folder and nowhere else,
    and PyTorch reads the weights without running code. Its checksums show damage, but not bad intentions.

    # Parameters

    archive_file : `Union[str, PathLike]`
        An archive, or a serialization directory. A path or an address.
    cuda_device : `int`, optional (default = `-1`)
    overrides : `Union[str, dict[str, Any]]`, optional (default = `""`)
        Jsonnet that overrides settings of the config. It is the caller's, and may name any type.
    weights_file : `str`, optional (default = `None`)
        The weights to use instead of the archive's.
    allowed_types : `Sequence[str]`, optional (default = `None`)
        Types that the archive's config may name by their Python path (`my_package.MyReader`). `None`: those
        of the environment variable `METANER_ALLOWED_TYPES`.

    # Returns

    `Archive`

    # Raises

    `ConfigurationError`, if there is no archive, if it is damaged, or if it asks for more than data can.
    """
    with unpacked(archive_file) as directory:
        check_config(directory / archival.CONFIG_NAME, str(archive_file), allowed_types)
        return archival.load_archive(directory, cuda_device, overrides, weights_file)  # type: ignore[arg-type]


@contextmanager
def unpacked(archive_file: Union[str, os.PathLike[str]]) -> Iterator[Path]:
    """
    A context with the folder of an archive's files, which is gone afterwards, or with a serialization
    directory itself.

    # Raises

    `ConfigurationError`, if `archive_file` is neither, cannot be unpacked, or is damaged.
    """
    path = check_archive(archive_file)
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="metaner-archive-") as scratch:
        _extract(path, scratch, str(archive_file))
        try:
            verify_checksums(scratch)
        except ConfigurationError as error:
            raise ConfigurationError(f"{archive_file}: {error}") from error
        yield Path(scratch)


def local_path(path: Union[str, os.PathLike[str]]) -> Path:
    """
    The local copy of a path or an address.

    # Raises

    `ConfigurationError`, if there is none.
    """
    try:
        return Path(cached_path(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}). Check the path") from error


def is_archive(path: Path) -> bool:
    """Whether `path` is an archive, or a serialization directory, which AllenNLP takes for one."""
    try:
        return (path / archival.CONFIG_NAME).is_file() if path.is_dir() else tarfile.is_tarfile(path)
    except _DAMAGED:
        return False


def check_archive(archive_file: Union[str, os.PathLike[str]]) -> Path:
    """
    The local copy of an archive, or a serialization directory.

    # Raises

    `ConfigurationError`, if `archive_file` is neither.
    """
    path = local_path(archive_file)
    if not is_archive(path):
        reason = f" (it has no {archival.CONFIG_NAME})" if path.is_dir() else ""
        raise ConfigurationError(
            f"{archive_file} is no archive{reason}: give a model.tar.gz, or a serialization directory"
        )
    return path


def verify_checksums(directory: Union[str, os.PathLike[str]]) -> None:
    """
    Compare the files of an unpacked archive with their checksums. Of a serialization directory, or an archive
    that another program has made, nothing is verified.

    # Raises

    `ConfigurationError`, naming the file that is missing or has changed.
    """
    folder = Path(directory)
    checksums, is_unpacked = folder / CHECKSUMS, (folder / archival._WEIGHTS_NAME).is_file()
    if not checksums.is_file() or not is_unpacked:
        if is_unpacked:
            logger.warning("The archive has no %s, so damage to it would not be noticed.", CHECKSUMS)
        return
    try:
        expected = dict(json.loads(checksums.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the archive is damaged: {CHECKSUMS} cannot be read ({error})") from error
    for name, checksum in expected.items():
        # A name never leaves the folder.
        path = folder / name
        inside = folder.resolve() in path.resolve().parents
        if not inside or not path.is_file() or _checksum(path) != checksum:
            raise ConfigurationError(
                f"the archive is damaged: {name} is not the file that was packed. Copy it, or make it again"
            )


def check_config(config_file: Path, source: str, allowed_types: Optional[Sequence[str]] = None) -> None:
    """
    # Parameters

    config_file : `Path`
        That of an archive: plain JSON.
    source : `str`
        Where it is from, for the message.
    allowed_types : `Sequence[str]`, optional (default = `None`)
        See [`load_archive`](#load_archive).

    # Raises

    `ConfigurationError`, if building what the config describes could call other than registered types.
    """
    if allowed_types is None:
        allowed_types = [name.strip() for name in os.environ.get(ALLOWED_TYPES, "").split(",")]
    try:
        config = json.loads(config_file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{source}: its config.json cannot be read as JSON ({error})") from error
    registered = {name for registry in Registrable._registry.values() for name in registry}
    for key, value in _entries(config):
        name = key.rsplit(".", 1)[-1]
        if name == "trust_remote_code" and value:
            raise ConfigurationError(f"{source}: the config sets {key}, which would run code of the archive")
        # AllenNLP imports what has a dot, and calls it; "from_archive" loads another archive without a check.
        foreign = isinstance(value, str) and ("." in value and value not in registered)
        if name == "type" and (foreign or value == "from_archive") and value not in allowed_types:
            raise ConfigurationError(
                f"{source}: the config has {key} = {value!r}, which could be any code, so it is not loaded. "
                f"If you trust it, name it in the environment variable {ALLOWED_TYPES} (or in allowed_types)"
            )


def _entries(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All entries of nested JSON objects, with the path of their keys."""
    if isinstance(config, list):
        config = {str(number): value for number, value in enumerate(config)}
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{path}{key}", value
            yield from _entries(value, f"{path}{key}.")


def _extract(path: Path, target: str, source: str) -> None:
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                archive.extractall(target, filter="data")
            # Behind a damaged member, `tarfile` takes the archive for finished; the checksum is at the end.
            while stream.read(1 << 20):
                pass
    except tarfile.FilterError as error:
        raise ConfigurationError(
            f"{source}: a member would be unpacked outside of the folder, or is no plain file ({error}), so "
            "the archive is not loaded"
        ) from error
    except _DAMAGED as error:
        raise ConfigurationError(
            f"{source}: the archive is damaged ({error}). Copy or make it again"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{source}: cannot be unpacked to {target} ({error}). Make room there, or set TMPDIR"
        ) from error


def _checksums_to_be(directory: Path, weights: Path, included: Sequence[str]) -> dict[str, str]:
    """The checksums of what AllenNLP will pack, by the names it will have in the archive."""
    files = {
        archival._WEIGHTS_NAME: directory / weights,
        archival.CONFIG_NAME: directory / archival.CONFIG_NAME,
        archival.META_NAME: directory / archival.META_NAME,
    }
    for pattern in ("vocabulary", *included):
        for found in directory.glob(pattern):
            for path in (found, *found.rglob("*")):
                files[path.relative_to(directory).as_posix()] = path
    return {name: _checksum(path) for name, path in files.items() if path.is_file()}


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
