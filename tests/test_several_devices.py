"""METANER_DEVICES, for which every shipped training is one in several processes."""

from typing import Any

import pytest

import allennlp_metaner  # noqa: F401  # sets the environment variables
from tests.configs import TRAINING, config


def batch_size(settings: dict[str, Any]) -> int:
    loader = settings["data_loader"]
    size: int = loader.get("batch_sampler", loader)["batch_size"]
    return size


@pytest.mark.parametrize("name", TRAINING)
def test_every_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two processes, it makes the same updates."""
    monkeypatch.setenv("METANER_DEVICES", "-1,-1")
    shared = config(name, TRAINING)
    assert shared["distributed"] == {"cuda_devices": [-1, -1]} and "cuda_device" not in shared["trainer"]
    assert batch_size(shared) == 32 / 2


@pytest.mark.parametrize("name", ["meta_en", "base_en"])
def test_nothing_else_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = config(name)
    monkeypatch.setenv("METANER_DEVICES", "-1,-1")
    shared = config(name)
    assert shared.pop("distributed") and batch_size(alone) == 2 * batch_size(shared)
    shared["data_loader"] = alone["data_loader"]
    assert shared == alone


def test_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = config("meta_en")
    monkeypatch.setenv("METANER_DEVICES", "1")
    found = config("meta_en")
    assert found["trainer"].pop("cuda_device") == 1
    assert found == alone


@pytest.mark.parametrize("devices", ["gpu", "0,", "0;1"])
def test_no_devices(devices: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_DEVICES", devices)
    with pytest.raises(RuntimeError, match=f"METANER_DEVICES={devices} must be numbers like 0,1"):
        config("base_en")


def test_a_batch_that_cannot_be_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_DEVICES", "0,1,2")
    with pytest.raises(RuntimeError, match=r"METANER_BATCH_SIZE=32 must be a multiple .* which is 3"):
        config("base_en")
