"""Meta-training on AllenNLP's gradient-descent trainer."""

import json
import random
from pathlib import Path
from typing import Any, Optional

import torch
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader, TensorDict
from allennlp.models import Model
from allennlp.training import Checkpointer, GradientDescentTrainer, Trainer, TrainerCallback
from allennlp.training.callbacks import ConfidenceChecksCallback
from allennlp.training.learning_rate_schedulers import LearningRateScheduler
from allennlp.training.momentum_schedulers import MomentumScheduler
from allennlp.training.moving_average import MovingAverage
from allennlp.training.optimizers import Optimizer

from allennlp_metaner.data.entity_masking_indexer import refuse_masking
from allennlp_metaner.meta.meta_gradients import FirstOrderMaml, MetaGradient
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.nn.randomness import derived_seed
from allennlp_metaner.training.epoch_loss import EpochLoss


class _GivenGradient(torch.autograd.Function):
    """
    A scalar whose gradient was computed elsewhere. With the meta-gradient behind an ordinary loss,
    everything that AllenNLP's trainer does with a loss and its gradient (accumulation, regularisation,
    clipping, callbacks) holds for meta-training too.
    """

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, gradient: list[torch.Tensor], *parameters: torch.Tensor
    ) -> torch.Tensor:
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx: Any, factor: torch.Tensor) -> Any:
        torch._foreach_mul_(ctx.gradient, factor)
        return None, None, *ctx.gradient


@Trainer.register("meta", constructor="from_partial_objects")
class MetaTrainer(GradientDescentTrainer):
    """
    A `GradientDescentTrainer` whose gradient is the meta-gradient of a batch of pseudo tasks (Eq. 7-12). All
    that AllenNLP users know of a trainer works as usual: callbacks, schedules, checkpoints and `--recover`,
    patience, clipping, gradient accumulation (batches of tasks are averaged).

    A batch is one meta update, so the data loader's `batch_size` is the number of tasks of an update, and
    `batches_per_epoch` the number of updates between two validations. Validation is without adaptation.

    Random numbers depend on the seed of the config, the number of the epoch, the update and its tasks alone:
    a recovered run ends with the same weights as one that was never interrupted, as long as the data loader
    has `num_workers` = 0 (AllenNLP's default); workers deliver batches in no fixed order.

    Mixed precision (`use_amp`), distributed training and `evaluate_on_test` are refused.

    Registered as a `Trainer` with name "meta".

    # Parameters

    meta_gradient : `MetaGradient`, optional (default = `FirstOrderMaml()`)
    schedule_inner_lr : `bool`, optional (default = `True`)
        Whether the learning-rate schedule also applies to the inner learning rate. AllenNLP steps the
        schedule between gradient and update, so the inner rate is always that of the update before: with
        warm-up from 0, the first meta-gradient is taken at the meta parameters themselves.

    The others are those of `GradientDescentTrainer`.

    # Raises

    `ConfigurationError`, for the options that are refused, if the validation reader masks words, if the
    validation data loader leaves out or repeats sentences, and if there are fewer sentences than a batch.
    """

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        data_loader: DataLoader,
        meta_gradient: Optional[MetaGradient] = None,
        schedule_inner_lr: bool = True,
        **kwargs: Any,
    ) -> None:
        _refuse_unsupported(kwargs)
        _refuse_too_few(data_loader)
        callbacks = kwargs.pop("callbacks", None) or []
        self._epoch_loss = next((c for c in callbacks if isinstance(c, EpochLoss)), EpochLoss())
        if self._epoch_loss not in callbacks:
            # In front: states of callbacks are found again by their position.
            callbacks = [self._epoch_loss, *callbacks]
        super().__init__(model, optimizer, data_loader, callbacks=callbacks, **kwargs)
        validation_reader = getattr(self._validation_data_loader, "reader", None)
        if validation_reader is not None:
            refuse_masking(validation_reader, "validation")
        _refuse_partial(self._validation_data_loader)
        self._meta_gradient = meta_gradient or FirstOrderMaml()
        self._schedule_inner_lr = schedule_inner_lr
        self._seed = torch.initial_seed()
        self._directory: Optional[str] = kwargs.get("serialization_dir")
        self._update = (-1, 0)

    @classmethod
    def from_partial_objects(  # type: ignore[override]
        cls,
        model: Model,
        serialization_dir: str,
        data_loader: DataLoader,
        validation_data_loader: Optional[DataLoader] = None,
        # These are restated because AllenNLP would build what hides behind **kwargs too early.
        optimizer: Lazy[Optimizer] = Lazy(Optimizer.default),
        learning_rate_scheduler: Optional[Lazy[LearningRateScheduler]] = None,
        momentum_scheduler: Optional[Lazy[MomentumScheduler]] = None,
        moving_average: Optional[Lazy[MovingAverage]] = None,
        checkpointer: Optional[Lazy[Checkpointer]] = Lazy(Checkpointer),
        callbacks: Optional[list[Lazy[TrainerCallback]]] = None,
        meta_gradient: Optional[MetaGradient] = None,
        schedule_inner_lr: bool = True,
        **kwargs: Any,
    ) -> Trainer:
        """Builds the trainer from a config, see `GradientDescentTrainer.from_partial_objects`."""
        _refuse_unsupported(kwargs)
        return super().from_partial_objects(
            model=model,
            serialization_dir=serialization_dir,
            data_loader=data_loader,
            # AllenNLP's own annotations leave out that these may be missing.
            validation_data_loader=validation_data_loader,  # type: ignore[arg-type]
            optimizer=optimizer,
            learning_rate_scheduler=learning_rate_scheduler,  # type: ignore[arg-type]
            momentum_scheduler=momentum_scheduler,  # type: ignore[arg-type]
            moving_average=moving_average,  # type: ignore[arg-type]
            checkpointer=checkpointer,
            callbacks=callbacks,  # type: ignore[arg-type]
            meta_gradient=meta_gradient,
            schedule_inner_lr=schedule_inner_lr,
            **kwargs,
        )

    def train(self) -> dict[str, Any]:
        _refuse_evaluate_on_test(self._directory)
        return super().train()

    def _maybe_restore_checkpoint(self) -> None:
        super()._maybe_restore_checkpoint()
        if self._start_after_epochs_completed or self._start_after_batches_in_epoch_completed:
            # They look at the very first batch and then take their hooks away. If that is in the past, the
            # hooks would stay, and with them the inner loop takes one microbatch after the other.
            self._callbacks = [c for c in self._callbacks if not isinstance(c, ConfidenceChecksCallback)]
        if self._moving_average is not None:
            _attach(self._moving_average, self.model)
        if not self._start_after_epochs_completed or self._start_after_batches_in_epoch_completed:
            return
        # AllenNLP writes the checkpoint of an epoch before it keeps the epoch's model as the best one, and
        # before it stops early. So a run that goes on from there would know of neither.
        if self._directory and self._metric_tracker.is_best_so_far():
            self._best_model_filename = str(Path(self._directory) / "best.th")
            self._save_averaged_model(self._best_model_filename)
        if self._metric_tracker.should_stop_early():
            self._num_epochs = self._start_after_epochs_completed

    def _save_averaged_model(self, path: str) -> None:
        # The file may be a hard link to a checkpoint, which must not change with it.
        Path(path).unlink(missing_ok=True)
        if self._moving_average is None:
            self._save_model_state(path)
            return
        self._moving_average.assign_average_value()
        try:
            self._save_model_state(path)
        finally:
            self._moving_average.restore()

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        # Shuffling and masking draw from here. AllenNLP reads skipped epochs and batches again after
        # `--recover`, so a seed an epoch brings every draw back.
        random.seed(derived_seed(self._seed, epoch))
        metrics = super()._train_epoch(epoch)
        num_batches = self._batches_in_epoch_completed
        if num_batches and self._epochs_completed >= self._start_after_epochs_completed:
            # AllenNLP's own sum lacks the batches before an interruption.
            metrics["loss"] = self._epoch_loss.loss / num_batches
            if self.model.get_regularization_penalty() is not None:
                metrics["reg_loss"] = self._epoch_loss.reg_loss / num_batches
        return metrics

    def batch_outputs(self, batch: TensorDict, for_training: bool) -> dict[str, torch.Tensor]:
        """
        In training, the query loss of the batch's tasks, whose gradient is the meta-gradient. In validation,
        what the model returns for the queries, without adaptation.
        """
        if not for_training:
            return super().batch_outputs(batch, for_training=False)
        if "task" not in batch:
            raise ConfigurationError(
                f"the trainer 'meta' got a batch with the fields {', '.join(batch)}, but needs 'task': wrap "
                "the config's dataset_reader in one of type 'pseudo_tasks'"
            )
        parameters = trainable_parameters(self.model)
        loss, gradient = self._meta_gradient(
            self.model,  # type: ignore[arg-type]
            parameters,
            batch["task"],  # type: ignore[arg-type]
            seed=derived_seed(self._seed, *self._count_update()),
            learning_rate_scale=self._learning_rate_scale(),
        )
        loss = _GivenGradient.apply(loss, gradient, *(parameter for _, parameter in parameters))
        outputs = {"loss": loss}
        penalty = self.model.get_regularization_penalty()
        if penalty is not None:
            outputs["loss"] = loss + penalty
            outputs["reg_loss"] = penalty
        return outputs

    def _count_update(self) -> tuple[int, int]:
        """The number of this update, and which of the batches it accumulates this one is."""
        update, batch = self._update
        same = update == self._total_batches_completed
        self._update = (self._total_batches_completed, batch + 1 if same else 0)
        return self._update

    def _learning_rate_scale(self) -> float:
        group = self.optimizer.param_groups[0]
        if not self._schedule_inner_lr or not group.get("initial_lr"):
            return 1.0
        return group["lr"] / group["initial_lr"]


def _attach(average: MovingAverage, model: Model) -> None:
    """After loading a checkpoint, a moving average holds copies of the parameters, and all on the CPU."""
    parameters = dict(model.named_parameters())
    average._parameters = [(name, parameters[name]) for name, _ in average._parameters]
    for tensors in (average._shadows, average._backups):
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(parameters[name].device)


def _refuse_too_few(data_loader: DataLoader) -> None:
    if not getattr(data_loader, "drop_last", False):
        return
    # Where the loader keeps few instances in memory, their number is not known.
    instances, batch_size = getattr(data_loader, "_instances", None), getattr(data_loader, "batch_size", None)
    if instances is not None and batch_size is not None and len(instances) < batch_size:
        raise ConfigurationError(
            f"the training data has {len(instances)} sentences, but a batch needs data_loader.batch_size="
            f"{batch_size} of them, and data_loader.drop_last leaves smaller batches out, so there is "
            "nothing to train on. Give more sentences, a smaller batch (in the shipped configs "
            "METANER_BATCH_SIZE), or drop_last = false"
        )


def _refuse_partial(validation_data_loader: Optional[DataLoader]) -> None:
    for option in ("batches_per_epoch", "drop_last"):
        value = getattr(validation_data_loader, option, None)
        if value:
            raise ConfigurationError(
                f"the validation data loader has {option}={value}, so validation would leave out or repeat "
                "sentences. Give the config a 'validation_data_loader' of its own, without that option."
            )


def _refuse_unsupported(options: dict[str, Any]) -> None:
    if options.get("use_amp"):
        raise ConfigurationError(
            "trainer.use_amp: loss scaling does not reach the inner steps, so the trainer 'meta' cannot use "
            "mixed precision. Take use_amp out of the config."
        )
    if options.get("distributed"):
        raise ConfigurationError(
            "the trainer 'meta' runs in one process: take the key 'distributed' out of the config."
        )


def _refuse_evaluate_on_test(serialization_dir: Optional[str]) -> None:
    config = Path(serialization_dir or "") / "config.json"
    if (
        serialization_dir
        and config.exists()
        and json.loads(config.read_text("utf-8")).get("evaluate_on_test")
    ):
        raise ConfigurationError(
            "evaluate_on_test labels the test data without adaptation, which is not the method's result. "
            "Take it out of the config, and run `allennlp evaluate` on the archive."
        )
