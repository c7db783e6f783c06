"""Archives that are whole when they appear, are what they were when they are loaded, and cannot run code."""

import gzip
import io
import json
import logging
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional, Union

from allennlp.commands import train
from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.models import Archive, archival

from allennlp_metaner.atomic import whole_file
from allennlp_metaner.file_hash import file_hash
from allennlp_metaner.untrusted_config import untrusted

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
"""The file of an archive with the SHA-256 checksum of every other file in it."""

COMPRESSION = 4
"""Level 9, Python's default, takes nine times as long for weights that repeat, and saves nothing."""

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
    members = _members(directory, Path(weights), include_in_archive or ())
    for name in (archival._WEIGHTS_NAME, archival.CONFIG_NAME):
        if not members[name].is_file():
            raise ConfigurationError(f"{members[name]} does not exist, so there is no model to archive")
    advice = (
        "Make room or give another folder; the run is not lost, `allennlp train --recover` makes the archive "
        "from its last checkpoint"
    )
    logger.info("archiving weights and vocabulary to %s", target)
    with (
        whole_file(target, advice) as temporary,
        tarfile.open(temporary, "w:gz", dereference=True, compresslevel=COMPRESSION) as archive,
    ):
        for name, path in members.items():
            archive.add(path, name)
        checksums = json.dumps({name: file_hash(path) for name, path in members.items()}).encode()
        member = tarfile.TarInfo(CHECKSUMS)
        member.size = len(checksums)
        archive.addfile(member, io.BytesIO(checksums))
    return str(target)


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
    with (
        unpacked(archive_file) as directory,
        untrusted(directory / archival.CONFIG_NAME, str(archive_file), overrides, allowed_types),
    ):
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
    with extracted_archive(path, source=str(archive_file)) as scratch:
        yield Path(scratch)


@contextmanager
def extracted_archive(
    resolved_archive_file: Union[str, os.PathLike[str]], cleanup: bool = True, source: Optional[str] = None
) -> Iterator[str]:
    """
    AllenNLP's `extracted_archive`, but members are unpacked into the folder and nowhere else, checksums are
    verified, and the folder of an archive that cannot be unpacked is removed. All loading of archives goes
    through it once the package is imported, also that of `allennlp predict` and `allennlp evaluate`.

    # Parameters

    resolved_archive_file : `Union[str, PathLike]`
        A local file.
    cleanup : `bool`, optional (default = `True`)
        Whether the folder is removed at the end of the context. If not, the caller does it.
    source : `str`, optional (default = `None`)
        What messages call the archive; `None`: its path.

    # Raises

    `ConfigurationError`, if the archive cannot be unpacked, or is damaged.
    """
    source = source or str(resolved_archive_file)
    folder = tempfile.mkdtemp(prefix="metaner-archive-")
    try:
        _extract(Path(resolved_archive_file), folder, source)
        _verify_checksums(Path(folder), source)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        yield folder
    finally:
        if cleanup:
            shutil.rmtree(folder, ignore_errors=True)


# AllenNLP has no other place for these.
train.archive_model = archive_model
archival.extracted_archive = extracted_archive


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


def _verify_checksums(folder: Path, source: str) -> None:
    """Compare the files of an unpacked archive with their checksums, if it has any."""
    checksums = folder / CHECKSUMS
    if not checksums.is_file():
        logger.warning("%s has no %s, so damage to it would not be noticed.", source, CHECKSUMS)
        return
    try:
        expected = dict(json.loads(checksums.read_text("utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f"{source}: the archive is damaged: {CHECKSUMS} cannot be read ({error})"
        ) from error
    for name, checksum in expected.items():
        # A name never leaves the folder.
        path = folder / name
        inside = folder.resolve() in path.resolve().parents
        if not inside or not path.is_file() or file_hash(path) != checksum:
            raise ConfigurationError(
                f"{source}: the archive is damaged: {name} is not the file that was packed. Copy it, or make "
                "it again"
            )


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


def _members(directory: Path, weights: Path, included: Sequence[str]) -> dict[str, Path]:
    """The files of an archive by the names that they have in it."""
    members = {
        archival.CONFIG_NAME: directory / archival.CONFIG_NAME,
        archival._WEIGHTS_NAME: directory / weights,
    }
    if (directory / archival.META_NAME).is_file():
        members[archival.META_NAME] = directory / archival.META_NAME
    for pattern in ("vocabulary", *included):
        for found in sorted(directory.glob(pattern)):
            paths = [found]
            for folder, _, names in os.walk(found, followlinks=True):
                paths += [Path(folder) / name for name in sorted(names)]
            members.update((path.relative_to(directory).as_posix(), path) for path in paths if path.is_file())
    return members
