"""Plain training by the shipped config, interrupted or not; `test_distributed` has several processes."""

from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from allennlp.commands.train import TrainModel
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import prepare_environment
from allennlp.models import Model

from allennlp_metaner.training.reproducible_trainer import ReproducibleTrainer
from tests.training.conftest import ParamsMaker, WholeRun, identical, metrics_of, run, run_killed


@pytest.mark.parametrize(
    ("killed_after", "checkpoint_every"), [(4, 3), (5, None), (8, 2)], ids=["first", "between", "second"]
)
def test_a_killed_run_ends_like_a_whole_one(
    make_base_params: ParamsMaker,
    whole_run: WholeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_after: int,
    checkpoint_every: Optional[int],
) -> None:
    """In the first epoch of five updates, after it and in the second, with dropout, bit for bit."""
    every = {"trainer__checkpointer__save_every_num_batches": checkpoint_every}
    # Which writes no checkpoints in the middle of an epoch: they make no difference.
    folder, expected = whole_run(make_base_params())
    run_killed(tmp_path / "killed", make_base_params(**every), killed_after, monkeypatch)
    assert identical(run(tmp_path / "killed", make_base_params(**every), recover=True), expected)
    for epoch in range(2):
        whole, recovered = (metrics_of(path, epoch) for path in (folder, tmp_path / "killed"))
        assert recovered["training_loss"] == whole["training_loss"] > 0
        assert recovered["validation_loss"] == whole["validation_loss"]


def built(params: Any, directory: Path) -> ReproducibleTrainer:
    for key in ("include_in_archive", "evaluation"):
        params.pop(key)
    prepare_environment(params)
    directory.mkdir()
    trainer = TrainModel.from_params(params=params, serialization_dir=str(directory), local_rank=0).trainer
    assert isinstance(trainer, ReproducibleTrainer)
    return trainer


def mean_loss(model: Model, trainer: ReproducibleTrainer) -> float:
    """Of the validation sentences, one by one."""
    loader = trainer._validation_data_loader
    assert loader is not None
    losses = [model.forward_on_instance(instance)["loss"] for instance in loader.iter_instances()]
    return float(sum(losses) / len(losses))


@pytest.mark.parametrize("size", [1, 3])
def test_validation_loss(make_base_params: ParamsMaker, tmp_path: Path, size: int) -> None:
    """Ten sentences in batches of three: the mean of batches would weigh the last one more."""
    trainer = built(make_base_params(validation_data_loader__batch_size=size), tmp_path / "run")
    metrics = trainer.train()
    last = torch.load(tmp_path / "run/model_state_e2_b0.th")
    trainer.model.load_state_dict(last)
    expected = mean_loss(trainer.model.eval(), trainer)
    assert metrics["validation_loss"] == pytest.approx(expected, rel=1e-6)


def test_regularization_counts_once(make_base_params: ParamsMaker, tmp_path: Path) -> None:
    regularizer = {"regexes": [["classifier.weight", {"type": "l2", "alpha": 0.5}]]}
    still = {"trainer__optimizer": {"type": "sgd", "lr": 0.0}, "trainer__learning_rate_scheduler": None}
    trainer = built(make_base_params(model__regularizer=regularizer, **still), tmp_path / "run")
    penalty = 0.5 * trainer.model.classifier.weight.square().sum().item()  # type: ignore[operator, union-attr]
    assert trainer.train()["training_reg_loss"] == pytest.approx(penalty)


def test_other_loaders_are_refused_only_where_they_matter(
    make_base_params: ParamsMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_base_params(validation_data_loader={"type": "multiprocess", "batch_size": 4})
    trainer = built(params, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="validation_data_loader must be of type 'sharded'"):
        ReproducibleTrainer(
            trainer.model,
            trainer.optimizer,
            trainer.data_loader,
            validation_data_loader=trainer._validation_data_loader,
            distributed=True,
            world_size=2,
            ddp_wrapped_model=_Wrapped(),  # type: ignore[arg-type]
        )


class _Wrapped:
    is_sharded = False
