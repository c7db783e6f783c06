"""Environment variables."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from allennlp.common import file_utils
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.settings import MATMUL_PRECISION, MATMUL_PRECISIONS, set_cache, set_matmul_precision


@pytest.fixture(autouse=True)
def precision() -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    yield before
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("value", MATMUL_PRECISIONS)
def test_matmul_precision(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MATMUL_PRECISION, value)
    set_matmul_precision()
    assert torch.get_float32_matmul_precision() == value


def test_matmul_precision_left_alone(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MATMUL_PRECISION, raising=False)
    set_matmul_precision()
    assert torch.get_float32_matmul_precision() == precision


def test_matmul_precision_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MATMUL_PRECISION, "low")
    with pytest.raises(
        ConfigurationError, match="METANER_MATMUL_PRECISION='low' must be one of highest, high"
    ):
        set_matmul_precision()


def test_a_cache_that_can_be_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_utils, "CACHE_DIRECTORY", str(tmp_path / "new/cache"))
    set_cache()
    assert str(tmp_path / "new/cache") == file_utils.CACHE_DIRECTORY
    assert list((tmp_path / "new/cache").iterdir()) == []


def test_a_read_only_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setattr(file_utils, "CACHE_DIRECTORY", str(tmp_path / "home/.allennlp/cache"))
    with pytest.raises(NotADirectoryError):
        file_utils.cached_path(tmp_path / "home")
    with caplog.at_level(logging.WARNING):
        set_cache()
    assert "ALLENNLP_CACHE_ROOT" in caplog.text
    assert file_utils.cached_path(tmp_path / "home") == str(tmp_path / "home")
