"""Runs of the shipped configs through AllenNLP's own `train_model`, on tiny data, whole or killed."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from allennlp.commands import train
from allennlp.common import Params
from allennlp.common.params import with_overrides
from allennlp.training import GradientDescentTrainer, TrainerCallback

import allennlp_metaner  # noqa: F401  # registers the components
from tests.configs import config

UPDATES = 4
"""So many updates an epoch, and two epochs."""

Weights = dict[str, torch.Tensor]
ParamsMaker = Callable[..., Params]
WholeRun = Callable[[Params], tuple[Path, dict[str, Weights]]]


class InterruptedRunError(Exception):
    """Stands for a killed process: nothing but what is on the disk goes on."""


@TrainerCallback.register("tests_interrupt")
class Interrupt(TrainerCallback):
    """Ends the run after so many updates: a class attribute, as a recovered run must have the same config."""

    after: Optional[int] = None

    def on_batch(self, trainer: GradientDescentTrainer, *args: Any, **kwargs: Any) -> None:
        if kwargs["is_training"] and trainer._total_batches_completed == self.after:
            raise InterruptedRunError


def maker(name: str, defaults: dict[str, Any]) -> ParamsMaker:
    def make(**overrides: Any) -> Params:
        # Dots cannot stand in a keyword.
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        shadowed = {key for key in defaults for other in given if key.startswith(f"{other}.")}
        kept = {key: value for key, value in defaults.items() if key not in shadowed}
        return Params(with_overrides(config(name), {**kept, **given}))

    return make


@pytest.fixture
def tiny_settings(tiny_encoder: str, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_ENCODER", tiny_encoder)
    monkeypatch.setenv("METANER_DATA", str(tiny_data))


@pytest.fixture
def make_params(tiny_settings: None) -> ParamsMaker:
    """The shipped config for tiny data, with steps so large that every one of them shows."""
    return maker(
        "meta_en",
        {
            "data_loader.batch_size": 3,
            "data_loader.batches_per_epoch": UPDATES,
            "trainer.num_epochs": 2,
            "trainer.optimizer.lr": 1e-3,
            "trainer.meta_gradient.inner_loop.optimizer.lr": 1e-3,
            "trainer.learning_rate_scheduler.warmup_steps": 2,
            "trainer.callbacks": [{"type": "tests_interrupt"}],
        },
    )


@pytest.fixture
def make_base_params(tiny_settings: None) -> ParamsMaker:
    """Plain training likewise: two epochs of 40 sentences."""
    return maker(
        "base_en",
        {
            "data_loader.batch_sampler.batch_size": 8,
            "trainer.num_epochs": 2,
            "trainer.optimizer.lr": 1e-3,
            "trainer.learning_rate_scheduler.warmup_steps": 2,
            "trainer.callbacks": [{"type": "tests_interrupt"}],
        },
    )


@pytest.fixture(scope="session")
def still_encoder(tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny encoder without dropout."""
    directory = tmp_path_factory.mktemp("still") / "encoder"
    shutil.copytree(tiny_encoder, directory)
    config = json.loads((directory / "config.json").read_text("utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    return str(directory)


def results(directory: Path, model: Optional[torch.nn.Module] = None) -> dict[str, Weights]:
    """All weights that a run leaves behind: the best ones, the last ones, and those that are returned."""
    last = torch.load(directory / "model_state_e2_b0.th")
    found = {"best": torch.load(directory / "best.th"), "last": last}
    return found if model is None else {**found, "returned": model.state_dict()}


def metrics_of(directory: Path, epoch: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / f"metrics_epoch_{epoch}.json").read_text("utf-8"))
    return found


def identical(ours: dict[str, Weights], theirs: dict[str, Weights]) -> bool:
    return all(torch.equal(ours[kind][name], theirs[kind][name]) for kind in theirs for name in theirs[kind])


def run(directory: Path, params: Params, recover: bool = False) -> dict[str, Weights]:
    # A process of its own would start with other random states.
    random.seed()
    torch.seed()
    model = train.train_model(params, str(directory), recover=recover)
    # Hooks slow the inner loop down; those of AllenNLP's confidence checks outlived a recovered run.
    assert model is None or not any(module._forward_hooks for module in model.modules())
    return results(directory, model)


def run_killed(directory: Path, params: Params, after: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Interrupt, "after", after)
    with pytest.raises(InterruptedRunError):
        train.train_model(params, str(directory))
    patch.setattr(Interrupt, "after", None)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """The folder and the weights of an uninterrupted run, which is made once for all that compare with it."""
    made: dict[str, tuple[Path, dict[str, Weights]]] = {}

    def find(params: Params) -> tuple[Path, dict[str, Weights]]:
        config = json.dumps(params.as_dict(quiet=True), sort_keys=True)
        if config not in made:
            folder = tmp_path_factory.mktemp("whole") / "run"
            made[config] = folder, run(folder, params)
        return made[config]

    return find
