"""Files and folders that are written whole or not at all, and that can be written: asked before the work."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from allennlp.common.checks import ConfigurationError

ADVICE = "Make room, or give another folder"

# A folder can only be replaced by moving the old one away first, between which another process may come.
_REPLACE_ATTEMPTS = 16


@contextmanager
def whole_file(path: Path, advice: str = ADVICE) -> Iterator[Path]:
    """
    A context with a temporary path of the same name, in a folder beside `path`. At its end, the file that was
    written there takes the place of `path`. If it fails, `path` is as it was, and nothing else is left. A
    process that is killed may leave the temporary folder, `.NAME.*.tmp`. A device or a pipe, such as
    `/dev/stdout`, is written to directly.

    # Parameters

    path : `Path`
        The file. Its folder is made if it is missing.
    advice : `str`, optional (default = `"Make room, or give another folder"`)
        The last sentence of the message.

    # Raises

    `ConfigurationError`, naming `path`, if it cannot be written.
    """
    if _is_device(path):
        with named_errors(path, advice):
            yield path
        return
    with named_errors(path, advice), _scratch(path) as scratch:
        temporary = scratch / path.name
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def whole_directory(path: Path, advice: str = ADVICE, replace: bool = False) -> Iterator[Path]:
    """
    The same with a folder, which the block finds empty.

    # Parameters

    path : `Path`
        The folder.
    advice : `str`, optional (default = `"Make room, or give another folder"`)
        The last sentence of the message.
    replace : `bool`, optional (default = `False`)
        Whether the folder takes the place of one that is there. If not, that one stays: another process was
        faster.

    # Raises

    `ConfigurationError`, naming `path`, if it cannot be written.
    """
    with named_errors(path, advice), _scratch(path) as scratch:
        complete = scratch / "complete"
        complete.mkdir()
        yield complete
        for written in (*complete.rglob("*"), complete):
            _flush_to_disk(written)
        if replace:
            _replace(complete, path, scratch)
        else:
            try:
                complete.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
        _flush_to_disk(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that, whatever happens, has either the new content or the old."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The same with JSON."""
    write_whole(path, f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode())


def check_writable(path: Path) -> Path:
    """
    Find out before the work whether its result can be written.

    # Parameters

    path : `Path`
        A file to be written. Neither it nor its folder need exist, and neither is made.

    # Returns

    `Path`
        The same.

    # Raises

    `ConfigurationError`, if it is a folder, or if no file can be made where it would be.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path}: is a folder, so it cannot be written. Give the name of a file")
    if _is_device(path):
        return path
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        advice = "Give a file in a folder that can be written to"
        raise ConfigurationError(_message(path, error, advice)) from error
    return path


@contextmanager
def named_errors(path: Path, advice: str = ADVICE) -> Iterator[None]:
    """
    A context in which `path`, a file or a folder, is written. What the system refuses becomes one message;
    errors that are not about writing it, such as that of another file that is read, are left alone.

    # Raises

    `ConfigurationError`, naming `path`, if it cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # PyTorch hides what the operating system says behind a message of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or not _is_about(path, cause):
            raise
        raise ConfigurationError(_message(path, cause, advice)) from error


def _message(path: Path, error: OSError, advice: str) -> str:
    return f"{path}: cannot be written ({error}). {advice}"


def _is_about(path: Path, error: OSError) -> bool:
    """Whether an error is the system's answer to writing `path`, or what is in it, beside it or above it."""
    # Libraries raise errors without a number for reasons of their own. The reader of a pipe may end early.
    if error.errno in (None, errno.EPIPE, errno.ENOENT):
        return False
    if not isinstance(error.filename, (str, bytes)):
        return True
    path, named = path.absolute(), Path(os.fsdecode(error.filename)).absolute()
    return (
        named in (path, *path.parents)
        or path in named.parents
        or any(folder.name.startswith(_prefix(path)) for folder in (named, *named.parents))
    )


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A folder beside `path`: within a file system, renaming is atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_prefix(path), suffix=".tmp") as scratch:
        yield Path(scratch)


def _replace(complete: Path, path: Path, trash: Path) -> None:
    for attempt in range(_REPLACE_ATTEMPTS):
        try:
            complete.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt + 1 == _REPLACE_ATTEMPTS:
                raise
        with suppress(FileNotFoundError):
            path.rename(trash / f"replaced-{attempt}")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prefix(path: Path) -> str:
    return f".{path.name[:100]}."
