"""Environment variables."""

from collections.abc import Iterator

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.settings import MATMUL_PRECISION, MATMUL_PRECISIONS, set_matmul_precision


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
