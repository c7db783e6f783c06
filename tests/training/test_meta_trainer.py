"""Meta-training by the shipped config, through AllenNLP's own `train_model`, on tiny data."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from allennlp.commands.train import TrainModel, train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import prepare_environment
from allennlp.data import TensorDict
from allennlp.training import Checkpointer, GradientDescentTrainer, TrainerCallback

from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.training.meta_trainer import MetaTrainer
from tests.training.conftest import (
    UPDATES,
    InterruptedRunError,
    ParamsMaker,
    Weights,
    WholeRun,
    identical,
    metrics_of,
    run,
    run_killed,
)

TrainerMaker = Callable[..., MetaTrainer]


@TrainerCallback.register("tests_record")
class Record(TrainerCallback):
    """Keeps the batches of every update, and the gradient that the optimiser got."""

    def on_start(self, trainer: GradientDescentTrainer, is_primary: bool = True, **kwargs: Any) -> None:
        self.trainer = trainer
        self.batches: list[list[TensorDict]] = []
        self.gradients: list[Weights] = []
        self.learning_rates: list[float] = []
        self.scores: list[dict[str, float]] = []

    def on_batch(
        self,
        trainer: GradientDescentTrainer,
        batch_inputs: list[TensorDict],
        batch_outputs: list[dict[str, Any]],
        batch_metrics: dict[str, Any],
        epoch: int,
        batch_number: int,
        is_training: bool,
        **kwargs: Any,
    ) -> None:
        if is_training:
            self.batches.append(batch_inputs)
            named = trainer.model.named_parameters()
            self.gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})
            self.learning_rates.append(trainer.optimizer.param_groups[0]["lr"])
            self.scores.append(batch_metrics)


@pytest.fixture
def make_trainer(
    make_params: ParamsMaker, still_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainerMaker:
    """A trainer for one epoch, without dropout, with a recorder, whose optimiser leaves the weights alone."""

    monkeypatch.setenv("METANER_ENCODER", still_encoder)

    def make(**overrides: Any) -> MetaTrainer:
        still = {
            "trainer.num_epochs": 1,
            "trainer.optimizer": {"type": "sgd", "lr": 0.0},
            "trainer.learning_rate_scheduler": None,
            "trainer.callbacks": [{"type": "tests_record"}],
            "model.dropout": 0.0,
        }
        params = make_params(**{**still, **overrides})
        for key in ("include_in_archive", "evaluation"):
            params.pop(key)
        prepare_environment(params)
        directory = str(tmp_path / "run")
        os.makedirs(directory)
        trainer = TrainModel.from_params(params=params, serialization_dir=directory, local_rank=0).trainer
        assert isinstance(trainer, MetaTrainer)
        return trainer

    return make


def recorded(trainer: MetaTrainer) -> Record:
    trainer.train()
    (record,) = (callback for callback in trainer._callbacks if isinstance(callback, Record))
    return record


def meta_gradient(trainer: MetaTrainer, batch: TensorDict) -> Weights:
    parameters = trainable_parameters(trainer.model)
    # The seed does not matter without dropout.
    found = trainer._meta_gradient(trainer.model, parameters, batch["task"], seed=0).gradient  # type: ignore[arg-type]
    return {name: gradient for (name, _), gradient in zip(parameters, found, strict=True)}


def assert_close(ours: Weights, theirs: Weights) -> None:
    assert ours.keys() == theirs.keys()
    a, b = (torch.cat([weights[name].flatten() for name in sorted(ours)]) for weights in (ours, theirs))
    assert (a - b).norm() <= 1e-6 * b.norm()


class TestRecovery:
    @pytest.mark.parametrize(
        ("killed_after", "checkpoint_every", "found"),
        [(3, 2, "e0_b2"), (5, None, "e1_b0"), (8, 1, "e1_b3")],
        ids=["middle of the first epoch", "from an epoch's end", "middle of the second epoch"],
    )
    def test_ends_like_an_uninterrupted_run(
        self,
        make_params: ParamsMaker,
        whole_run: WholeRun,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        killed_after: int,
        checkpoint_every: Optional[int],
        found: str,
    ) -> None:
        """With dropout and masking, bit for bit."""
        # A validation that draws random numbers, and that a recovered run does not repeat.
        shuffled = {"validation_data_loader__shuffle": True}
        # Which writes no checkpoints in the middle of an epoch: they make no difference.
        folder, expected = whole_run(make_params(**shuffled))
        every = {**shuffled, "trainer__checkpointer__save_every_num_batches": checkpoint_every}
        directory = tmp_path / "killed"
        run_killed(directory, make_params(**every), killed_after, monkeypatch)
        latest = Checkpointer(directory).find_latest_checkpoint()
        assert latest is not None
        assert latest[0].endswith(f"model_state_{found}.th")
        if found == "e1_b0":
            # As if killed between this checkpoint and best.th, which AllenNLP writes next.
            (directory / "best.th").unlink()
        assert identical(run(directory, make_params(**every), recover=True), expected)
        for epoch in range(2):
            whole, recovered = (metrics_of(path, epoch) for path in (folder, directory))
            assert recovered["training_loss"] == whole["training_loss"] > 0

    def test_moving_average(
        self,
        make_params: ParamsMaker,
        whole_run: WholeRun,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        average = {"trainer__moving_average": {"type": "exponential", "decay": 0.5}}
        expected = run(tmp_path / "whole", make_params(**average))
        run_killed(tmp_path / "killed", make_params(**average), 5, monkeypatch)
        assert identical(run(tmp_path / "killed", make_params(**average), recover=True), expected)
        _, plain = whole_run(make_params())
        assert identical({"last": plain["last"]}, {"last": expected["last"]})
        assert not identical({"best": plain["best"]}, {"best": expected["best"]})

    def test_killed_while_writing_a_checkpoint(
        self,
        make_params: ParamsMaker,
        whole_run: WholeRun,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        every = {"trainer__checkpointer__save_every_num_batches": 2}
        _, expected = whole_run(make_params())
        save, saved = torch.save, []

        def killed(state: Any, file: Any) -> None:
            saved.append(file)
            if len(saved) == 4:
                file.write(b"half of a checkpoint")
                raise InterruptedRunError
            save(state, file)

        with monkeypatch.context() as patch, pytest.raises(InterruptedRunError):
            patch.setattr(torch, "save", killed)
            train_model(make_params(**every), str(tmp_path / "killed"))
        assert identical(run(tmp_path / "killed", make_params(**every), recover=True), expected)
        assert not list((tmp_path / "killed").glob("*.tmp"))

    def test_a_run_that_stopped_early_stays_stopped(self, make_params: ParamsMaker, tmp_path: Path) -> None:
        """Killed after its last checkpoint, while the archive was made."""
        # Without a step, the metric never improves.
        early = {
            "trainer__num_epochs": 4,
            "trainer__patience": 1,
            "trainer__optimizer__lr": 0.0,
            "trainer__learning_rate_scheduler": None,
        }
        expected = run(tmp_path / "run", make_params(**early))
        assert identical(run(tmp_path / "run", make_params(**early), recover=True), expected)
        assert (tmp_path / "run/metrics_epoch_1.json").exists()
        assert not (tmp_path / "run/metrics_epoch_2.json").exists()


def test_same_seed_same_weights(
    make_params: ParamsMaker, whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = whole_run(make_params())
    assert identical(first, run(tmp_path / "second", make_params()))
    monkeypatch.setenv("METANER_SEED", "1")
    assert not identical(run(tmp_path / "other", make_params()), first)


class TestGradient:
    def test_is_the_meta_gradient(self, make_trainer: TrainerMaker) -> None:
        trainer = make_trainer()
        record = recorded(trainer)
        assert len(record.batches) == UPDATES
        for (batch,), gradient in zip(record.batches, record.gradients, strict=True):
            assert len(batch["task"]) == 3
            assert_close(gradient, meta_gradient(trainer, batch))

    def test_accumulated_batches_are_averaged_and_their_random_numbers_differ(
        self, make_trainer: TrainerMaker
    ) -> None:
        trainer = make_trainer(trainer__num_gradient_accumulation_steps=2)
        seeds: list[int] = []
        algorithm = trainer._meta_gradient

        def spy(*args: Any, seed: int, **kwargs: Any) -> Any:
            seeds.append(seed)
            return algorithm(*args, seed=seed, **kwargs)

        trainer._meta_gradient = spy  # type: ignore[assignment]
        record = recorded(trainer)
        assert len(set(seeds)) == len(seeds) == UPDATES
        assert len(record.batches) == UPDATES / 2
        for batches, gradient in zip(record.batches, record.gradients, strict=True):
            first, second = (meta_gradient(trainer, batch) for batch in batches)
            assert_close(gradient, {name: (first[name] + second[name]) / 2 for name in first})

    def test_regularization(self, make_trainer: TrainerMaker) -> None:
        trainer = make_trainer(
            model__regularizer={"regexes": [["classifier.weight", {"type": "l2", "alpha": 0.5}]]}
        )
        record = recorded(trainer)
        weight = trainer.model.classifier.weight.detach()
        for (batch,), gradient, scores in zip(record.batches, record.gradients, record.scores, strict=True):
            expected = meta_gradient(trainer, batch)
            expected["classifier.weight"] = expected["classifier.weight"] + 2 * 0.5 * weight
            assert_close(gradient, expected)
            assert scores["batch_reg_loss"] == pytest.approx(0.5 * weight.square().sum().item())

    def test_clipping_of_the_norm(self, make_trainer: TrainerMaker) -> None:
        trainer = make_trainer(trainer__grad_norm=0.5)
        record = recorded(trainer)
        for (batch,), gradient in zip(record.batches, record.gradients, strict=True):
            expected = meta_gradient(trainer, batch)
            norm = torch.cat([g.flatten() for g in expected.values()]).norm()
            assert norm > 0.5
            assert_close(gradient, {name: g * 0.5 / norm for name, g in expected.items()})

    def test_clipping_of_values(self, make_trainer: TrainerMaker) -> None:
        trainer = make_trainer(trainer__grad_clipping=0.01)
        record = recorded(trainer)
        for (batch,), gradient in zip(record.batches, record.gradients, strict=True):
            expected = meta_gradient(trainer, batch)
            assert_close(gradient, {name: g.clamp(-0.01, 0.01) for name, g in expected.items()})


def scales(trainer: MetaTrainer) -> list[float]:
    """The factors on the inner learning rate in every update."""
    found: list[float] = []
    algorithm = trainer._meta_gradient

    def spy(*args: Any, learning_rate_scale: float, **kwargs: Any) -> Any:
        found.append(learning_rate_scale)
        return algorithm(*args, learning_rate_scale=learning_rate_scale, **kwargs)

    trainer._meta_gradient = spy  # type: ignore[assignment]
    return found


class TestSchedule:
    OPTIONS: dict[str, Any] = {  # noqa: RUF012
        "trainer__num_epochs": 2,
        "trainer__optimizer": {"type": "sgd", "lr": 1e-3},
        "trainer__learning_rate_scheduler": {"type": "linear_with_warmup", "warmup_steps": 2},
    }
    # Up in two updates, down to 0 in the other six.
    FACTORS = (0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0)

    def test_also_scales_the_inner_learning_rate(self, make_trainer: TrainerMaker) -> None:
        trainer = make_trainer(**self.OPTIONS)
        inner = scales(trainer)
        record = recorded(trainer)
        # AllenNLP steps the schedule between the gradient and the update, so the inner loop is one behind.
        assert inner == pytest.approx(self.FACTORS[:-1])
        assert record.learning_rates == pytest.approx([1e-3 * factor for factor in self.FACTORS[1:]])

    def test_not_if_switched_off(self, make_trainer: TrainerMaker) -> None:
        trainer = make_trainer(**self.OPTIONS, trainer__schedule_inner_lr=False)
        inner = scales(trainer)
        record = recorded(trainer)
        assert inner == [1.0] * 8
        assert record.learning_rates == pytest.approx([1e-3 * factor for factor in self.FACTORS[1:]])

    def test_no_schedule(self, make_trainer: TrainerMaker) -> None:
        trainer = make_trainer()
        inner = scales(trainer)
        trainer.train()
        assert inner == [1.0] * UPDATES


def test_fewer_sentences_than_a_batch(make_trainer: TrainerMaker) -> None:
    with pytest.raises(ConfigurationError, match=r"40 sentences, .*batch_size=41 .*METANER_BATCH_SIZE"):
        make_trainer(data_loader__batch_size=41)


def test_smaller_batches_may_be_kept(make_trainer: TrainerMaker) -> None:
    loader = {"batch_size": 41, "shuffle": True, "drop_last": False, "batches_per_epoch": 1}
    (batch,) = recorded(make_trainer(data_loader=loader)).batches
    assert len(batch[0]["task"]) == 40


def test_divergence_is_told(make_trainer: TrainerMaker, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(trainer__optimizer={"type": "adam", "lr": 10.0})
    metrics = trainer.train()
    assert metrics["training_loss"] > 200
    assert "Training has diverged" in caplog.text


def test_no_divergence_is_told(make_trainer: TrainerMaker, caplog: pytest.LogCaptureFixture) -> None:
    make_trainer().train()
    assert "diverged" not in caplog.text


def test_tensorboard(make_params: ParamsMaker, tmp_path: Path) -> None:
    params = make_params(trainer__callbacks=[{"type": "tensorboard"}], trainer__num_epochs=1)
    train_model(params, str(tmp_path / "run"))
    assert list((tmp_path / "run/log/train").iterdir())
    assert list((tmp_path / "run/log/validation").iterdir())


@pytest.fixture
def trained(make_params: ParamsMaker, tmp_path: Path) -> Iterator[Callable[[Params], None]]:
    def train(params: Params) -> None:
        train_model(params, str(tmp_path / "run"))

    yield train
    assert not (tmp_path / "run/model.tar.gz").exists()


class TestRefusals:
    def test_mixed_precision(self, make_params: ParamsMaker, trained: Callable[[Params], None]) -> None:
        with pytest.raises(ConfigurationError, match=r"trainer\.use_amp"):
            trained(make_params(trainer__use_amp=True))

    def test_evaluate_on_test(self, make_params: ParamsMaker, trained: Callable[[Params], None]) -> None:
        with pytest.raises(ConfigurationError, match=r"evaluate_on_test .* without adaptation"):
            trained(make_params(evaluate_on_test=True))

    @pytest.mark.parametrize("reader", [None, "base_reader"])
    def test_masked_validation(
        self, make_params: ParamsMaker, trained: Callable[[Params], None], reader: Optional[str]
    ) -> None:
        """Without a reader of its own, validation has the training reader."""
        params = make_params()
        params["validation_dataset_reader"] = (
            params["dataset_reader"][reader].duplicate().as_dict() if reader else None
        )
        with pytest.raises(ConfigurationError, match="reader used for validation masks entity words"):
            trained(params)

    def test_partial_validation(self, make_params: ParamsMaker, trained: Callable[[Params], None]) -> None:
        """Without a data loader of its own, validation sees as many batches as there are updates."""
        with pytest.raises(ConfigurationError, match="validation data loader has batches_per_epoch=4"):
            trained(make_params(validation_data_loader=None))

    def test_sentences_without_tasks(
        self, make_params: ParamsMaker, trained: Callable[[Params], None]
    ) -> None:
        params = make_params()
        params["dataset_reader"] = params["dataset_reader"]["base_reader"].duplicate().as_dict()
        with pytest.raises(ConfigurationError, match=r"needs 'task': wrap .* 'pseudo_tasks'"):
            trained(params)
