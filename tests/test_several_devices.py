"""METANER_DEVICES, for which every shipped training is one in several processes."""

from pathlib import Path
from typing import Any

import pytest
from allennlp.common import Params

import allennlp_metaner  # noqa: F401  # sets the environment variables

CONFIGS = Path(__file__).parents[1] / "training_configs"
TRAININGS = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.rglob("*.jsonnet")
    if not {"lib", "experiments", "targets"} & set(path.parts)
)


def evaluated(name: str) -> dict[str, Any]:
    found: dict[str, Any] = Params.from_file(str(CONFIGS / name)).as_dict(quiet=True)
    return found


def batch_size(config: dict[str, Any]) -> int:
    loader = config["data_loader"]
    size: int = loader.get("batch_sampler", loader)["batch_size"]
    return size


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two processes, it makes the same updates."""
    alone = evaluated(name)
    assert "distributed" not in alone and "cuda_device" not in alone["trainer"]
    monkeypatch.setenv("METANER_DEVICES", "-1,-1")
    shared = evaluated(name)
    assert shared.pop("distributed") == {"cuda_devices": [-1, -1]}
    assert batch_size(alone) == 2 * batch_size(shared)
    shared["data_loader"] = alone["data_loader"]
    assert shared == alone


def test_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = evaluated("meta_en.jsonnet")
    monkeypatch.setenv("METANER_DEVICES", "1")
    found = evaluated("meta_en.jsonnet")
    assert found["trainer"].pop("cuda_device") == 1
    assert found == alone


def test_a_batch_that_cannot_be_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_DEVICES", "0,1,2")
    with pytest.raises(RuntimeError, match=r"METANER_BATCH_SIZE=32 must be a multiple .* which is 3"):
        evaluated("base_en.jsonnet")
