"""Sums of losses, and what is said of them; `test_meta_trainer` has whole runs."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from allennlp_metaner.training.epoch_loss import EpochLoss


@pytest.fixture
def trainer() -> Any:
    vocab = SimpleNamespace(get_vocab_size=lambda namespace: {"labels": 9}[namespace])
    return SimpleNamespace(model=SimpleNamespace(vocab=vocab, max_loss_weight=2.0))


def add(callback: EpochLoss, trainer: Any, number: int, loss: float, sizes: tuple[int, ...] = (4,)) -> None:
    inputs = [{"metadata": [{}] * size} for size in sizes]
    callback.on_batch(
        trainer, inputs, [], {"batch_loss": loss, "batch_reg_loss": 0.25}, 0, number, is_training=True
    )


def test_sums_over_an_interruption(trainer: Any) -> None:
    first = EpochLoss()
    for number, loss in enumerate([100.0, 100.0], start=1):
        add(first, trainer, number, loss)
    for number, loss in enumerate([1.0, 2.0], start=1):
        add(first, trainer, number, loss, (4, 4))
    first.on_batch(trainer, [], [], {"batch_loss": 7.0}, 0, 1, is_training=False)
    second = EpochLoss()
    second.load_state_dict(first.state_dict())
    add(second, trainer, 3, 4.0)
    assert second.loss == 7.0
    # The penalty of each of the batches that are accumulated.
    assert second.reg_loss == 0.25 * (2 + 2 + 1)


@pytest.mark.parametrize(
    ("loss", "warns"),
    [
        (4 * 3 * math.log(9) * 9.9, False),
        (4 * 3 * math.log(9) * 10.1, True),
        (math.inf, True),
        (math.nan, True),
    ],
)
def test_absurd_losses(trainer: Any, caplog: pytest.LogCaptureFixture, loss: float, warns: bool) -> None:
    """Four sentences, lambda = 2, nine labels."""
    callback = EpochLoss()
    add(callback, trainer, 1, loss)
    callback.on_epoch(trainer, {}, epoch=0)
    assert ("Training has diverged" in caplog.text) == warns


def test_before_training(trainer: Any, caplog: pytest.LogCaptureFixture) -> None:
    EpochLoss().on_epoch(trainer, {}, epoch=-1)
    assert caplog.text == ""
