"""A training, predictions and an evaluation on another device, whose tensors refuse to mix with the CPU's."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.commands.train import TrainModel
from allennlp.common import Params
from allennlp.common.util import prepare_environment
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.models import load_archive
from allennlp.predictors import Predictor
from allennlp.training import gradient_descent_trainer
from allennlp.training import trainer as allennlp_trainer

from allennlp_metaner.evaluation import processes
from allennlp_metaner.evaluation.adapting_evaluator import AdaptingEvaluator
from allennlp_metaner.nn import randomness
from tests.devices import DEVICE, Devices, back

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers come as they do there, and AllenNLP does not ask for a driver."""
    monkeypatch.setattr(randomness, "hashes", lambda device: True)
    for module in (allennlp_trainer, processes):
        monkeypatch.setattr(module, "check_for_gpu", lambda device: None)


def test_a_tensor_on_the_wrong_device_is_noticed() -> None:
    with Devices():
        there = torch.ones(2, 3).to(DEVICE)
        with pytest.raises(RuntimeError, match=r"add.Tensor: expected all tensors on one device"):
            there + torch.ones(3)
        assert back(there + torch.tensor(1.0)).tolist() == [[2.0] * 3] * 2
        made = torch.arange(3, device=there.device)
        assert back(there * made).tolist() == [[0.0, 1.0, 2.0]] * 2
        assert there.tolist() == [[1.0] * 3] * 2


@pytest.fixture
def make_trainer(
    tiny_encoder: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """A trainer of the shipped config for tiny data, which writes no checkpoints."""
    monkeypatch.setenv("METANER_ENCODER", tiny_encoder)
    monkeypatch.setenv("METANER_DATA", str(tiny_data))
    overrides = {
        "data_loader.batch_size": 3,
        "data_loader.batches_per_epoch": 3,
        "trainer.num_epochs": 1,
        "trainer.optimizer.lr": 1e-3,
        "trainer.callbacks": [],
    }

    def make(name: str, cuda_device: int) -> Any:
        params = Params.from_file(
            str(ROOT / "training_configs/meta_en.jsonnet"), {**overrides, "trainer.cuda_device": cuda_device}
        )
        for key in ("include_in_archive", "evaluation"):
            params.pop(key)
        prepare_environment(params)
        (tmp_path / name).mkdir()
        training = TrainModel.from_params(params=params, serialization_dir=str(tmp_path / name), local_rank=0)
        training.trainer._serialization_dir = training.trainer._checkpointer = None
        return training.trainer

    return make


def test_training(make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With masking and dropout, and a validation after it, which adapts."""
    here = make_trainer("here", -1)
    expected = here.train()
    monkeypatch.setattr(allennlp_trainer, "int_to_device", lambda number: DEVICE)
    monkeypatch.setattr(gradient_descent_trainer, "check_for_gpu", lambda device: None)
    # Of fused optimizers.
    optimizers = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: [DEVICE.type])
    with Devices():
        monkeypatch.setattr(torch.nn.Module, "cuda", lambda self, device: self.to(DEVICE))
        there = make_trainer("there", 0)
        found = there.train()
        ours, theirs = (
            torch.cat([each(p.detach()).flatten() for p in trainer.model.parameters() if p.requires_grad])
            for trainer, each in ((there, back), (here, torch.clone))
        )
    for name in ("training_loss", "validation_loss"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


SENTENCES = ["Peter Smith won the Paris Open .", "The Bank of Madrid said 4 percent .", "rain fell"]


def test_prediction(tiny_run: SimpleNamespace) -> None:
    """Adapted. AllenNLP finds a model by the number of its GPU, and this device has none."""
    lines = [{"sentence": sentence} for sentence in SENTENCES]
    expected = Predictor.from_archive(load_archive(str(tiny_run.archive))).predict_batch_json(lines)
    archive = load_archive(str(tiny_run.archive))
    with Devices():
        archive.model.to(DEVICE)
        predictor = Predictor.from_archive(archive)
        predictor.cuda_device = DEVICE
        found = predictor.predict_batch_json(lines)
    assert [line["tags"] for line in found] == [line["tags"] for line in expected]
    assert any(tag != "O" for line in found for tag in line["tags"])


@pytest.mark.parametrize("adapt", [False, True])
def test_evaluation(tiny_run: SimpleNamespace, adapt: bool) -> None:
    def metrics(device: Any) -> dict[str, Any]:
        archive = load_archive(str(tiny_run.archive))
        loader = MultiProcessDataLoader(
            archive.validation_dataset_reader, str(tiny_run.data / "conll2003/eng.testb"), batch_size=8
        )
        loader.index_with(archive.model.vocab)
        if device is DEVICE:
            archive.model.to(DEVICE)
        return AdaptingEvaluator(cuda_device=device, adapt=adapt)(archive.model, loader)

    expected = metrics(torch.device("cpu"))
    with Devices():
        found = metrics(DEVICE)
    assert found == pytest.approx(expected, rel=1e-4) and expected["f1-measure-overall"] > 0
