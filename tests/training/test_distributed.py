"""Several processes by AllenNLP's key `distributed`, on CPUs: they end where one ends."""

import multiprocessing
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from allennlp.commands import train
from allennlp.common.util import SigTermReceived, install_sigterm_handler
from allennlp.training import GradientDescentTrainer, TrainerCallback

from allennlp_metaner.training import processes, reproducible_trainer
from allennlp_metaner.training.processes import over_all_processes
from tests.training.conftest import ParamsMaker, Weights, identical, metrics_of, results

TWO = {"distributed": {"cuda_devices": [-1, -1]}}


@TrainerCallback.register("tests_kill")
class Kill(TrainerCallback):
    """Kills the second process after so many updates."""

    after = 0

    def on_batch(self, trainer: GradientDescentTrainer, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 1 and kwargs["is_training"] and trainer._total_batches_completed == self.after:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked, since a spawned process would have to import AllenNLP again. Its plugins are there already."""
    monkeypatch.setattr(train, "import_plugins", lambda: None)
    monkeypatch.setattr(processes, "START_METHOD", "fork")
    monkeypatch.setattr(reproducible_trainer, "GRACE_PERIOD", 1.0)


def assert_close(ours: Weights, theirs: Weights) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # Whatever is added to all attention scores makes no difference: the gradient of this bias is 0 but
        # for rounding, and Adam makes a step of that.
        if not name.endswith("attention.self.key.bias"):
            torch.testing.assert_close(ours[name], tensor, rtol=0.0, atol=1e-6)


def assert_same_run(two: Path, one: Path) -> None:
    for kind, weights in results(one).items():
        assert_close(results(two)[kind], weights)
    for epoch in range(2):
        ours, theirs = metrics_of(two, epoch), metrics_of(one, epoch)
        scores = [key for key in theirs if re.match("(training|validation)_(?!duration|worker)", key)]
        assert {"training_loss", "validation_loss", "validation_f1-measure-overall"} <= set(scores)
        for key in scores:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5), key
        # Meta-training labels nothing, and zeros would look like a failure.
        assert ("training_accuracy" in ours) == ("training_accuracy" in theirs)


@pytest.mark.parametrize(
    ("reduction", "accumulated"), [("sum", 1), ("mean", 2)], ids=["summed", "averaged and accumulated"]
)
def test_two_processes_meta_train_like_one(
    make_params: ParamsMaker, tmp_path: Path, reduction: str, accumulated: int
) -> None:
    """Five updates and more of 2 x 4 and of 8 tasks, with dropout and masking."""
    options = {
        "trainer__meta_gradient__reduction": reduction,
        "trainer__num_gradient_accumulation_steps": accumulated,
        "data_loader__batches_per_epoch": 3 * accumulated,
        # 10 sentences: the last batch is smaller, and odd.
        "validation_data_loader__batch_size": 3,
    }
    train.train_model(make_params(**options, data_loader__batch_size=8), str(tmp_path / "one"))
    train.train_model(make_params(**options, data_loader__batch_size=4, **TWO), str(tmp_path / "two"))
    assert_same_run(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "two/model.tar.gz").exists()


@pytest.mark.parametrize("reduction", ["sentence", "token"])
def test_two_processes_train_a_base_model_like_one(
    make_base_params: ParamsMaker,
    tmp_path: Path,
    still_encoder: str,
    monkeypatch: pytest.MonkeyPatch,
    reduction: str,
) -> None:
    """Without dropout, which draws other numbers; a student's loss is a mean over tokens."""
    monkeypatch.setenv("METANER_ENCODER", still_encoder)
    options = {"model__dropout": 0.0, "model__loss_reduction": reduction}
    size = "data_loader__batch_sampler__batch_size"
    train.train_model(make_base_params(**options, **{size: 6}), str(tmp_path / "one"))
    train.train_model(make_base_params(**options, **{size: 3}, **TWO), str(tmp_path / "two"))
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_process_that_dies(
    make_params: ParamsMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All end, one message says which, what is left is whole, and `--recover` ends like a whole run."""
    options = {
        "trainer__checkpointer__save_every_num_batches": 2,
        "trainer__callbacks": [{"type": "tests_kill"}],
        **TWO,
    }
    train.train_model(make_params(**options), str(tmp_path / "whole"))
    killed = tmp_path / "killed"
    with monkeypatch.context() as patch, pytest.raises(mp.ProcessExitedException) as raised:
        patch.setattr(Kill, "after", 7)
        train.train_model(make_params(**options), str(killed))
    assert str(raised.value) == "process 1 terminated with signal SIGKILL"
    assert not (killed / "model.tar.gz").exists()
    for file in killed.glob("*.th"):
        torch.load(file)
    # The model's first loss is known again, though the second epoch was interrupted.
    train.train_model(make_params(**options), str(killed), recover=True)
    assert identical(results(killed), results(tmp_path / "whole"))
    for epoch in range(2):
        ours, theirs = metrics_of(killed, epoch), metrics_of(tmp_path / "whole", epoch)
        assert ours["training_loss"] == theirs["training_loss"] > 0
        assert ours["validation_loss"] == theirs["validation_loss"]


def test_a_process_that_fails(make_params: ParamsMaker, tmp_path: Path) -> None:
    """Its error is the one that is reported, and not that the others miss it."""
    params = make_params(trainer__callbacks=[{"type": "tests_fail"}], **TWO)
    with pytest.raises(mp.ProcessRaisedException, match="Process 1 terminated") as raised:
        train.train_model(params, str(tmp_path / "run"))
    assert str(raised.value).endswith("RuntimeError: no memory\n")


@TrainerCallback.register("tests_fail")
class Fail(TrainerCallback):
    def on_batch(self, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 1:
            raise RuntimeError("no memory")


@TrainerCallback.register("tests_end")
class End(TrainerCallback):
    def on_batch(self, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 1:
            os.kill(os.getppid(), signal.SIGTERM)


def test_told_to_end(make_params: ParamsMaker, tmp_path: Path) -> None:
    """As by `kill`: no process goes on."""
    before = signal.getsignal(signal.SIGTERM)
    install_sigterm_handler()
    try:
        with pytest.raises(SigTermReceived):
            train.train_model(
                make_params(trainer__callbacks=[{"type": "tests_end"}], trainer__num_epochs=100, **TWO),
                str(tmp_path / "run"),
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    for child in multiprocessing.active_children():
        child.join(timeout=60)
    assert not multiprocessing.active_children()


def shared(rank: int, directory: str) -> None:
    meeting = f"file://{directory}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    loss, gradient = torch.tensor(1.0 + rank), [torch.full((2, 2), 2.0 + rank), torch.tensor(-1.0)]
    found = [over_all_processes(loss, gradient), over_all_processes(loss, gradient, size=1 + 2 * rank)]
    dist.destroy_process_group()
    torch.save(found, f"{directory}/{rank}")


def test_sums_and_means(tmp_path: Path) -> None:
    workers = mp.start_processes(shared, (str(tmp_path),), 2, join=False, daemon=True, start_method="fork")
    assert any(workers.join(timeout=60) for _ in range(2)), "the workers hang"
    for rank in range(2):
        (total, summed), (mean, averaged) = torch.load(tmp_path / str(rank))
        assert (total, mean) == (3.0, 1.75)
        assert summed[0].tolist() == [[5.0] * 2] * 2 and summed[1] == -2.0
        assert averaged[0].tolist() == [[2.75] * 2] * 2 and averaged[1] == -1.0
