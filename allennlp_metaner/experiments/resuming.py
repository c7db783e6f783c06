"""Trainings that go on after an interruption."""

from pathlib import Path
from typing import Any

from allennlp.commands.train import train_model
from allennlp.common import Params


def train_or_resume(config: dict[str, Any], run: Path) -> bool:
    """
    `allennlp train`, from the last checkpoint in `run`, if there is one.

    # Parameters

    config : `dict[str, Any]`
        With nothing left to evaluate. It is left as it is.
    run : `Path`
        The serialization directory. What is in it without a checkpoint is removed.

    # Returns

    `bool`
        Whether there was a checkpoint.
    """
    # Without a checkpoint there is nothing to continue from, only remains.
    recover = any(run.glob("model_state_e*.th"))
    params = Params(config).duplicate()
    train_model(params, run, recover=recover, force=not recover, file_friendly_logging=True)
    return recover
