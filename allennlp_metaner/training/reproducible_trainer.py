"""A trainer whose runs end alike, interrupted or not, in one process or several."""

import json
import random
import time
from pathlib import Path
from typing import Any, Optional

import torch
import torch.distributed as dist
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader, TensorDict
from allennlp.models import Model
from allennlp.nn.parallel import DdpAccelerator
from allennlp.training import Checkpointer, GradientDescentTrainer, Trainer, TrainerCallback
from allennlp.training.callbacks import ConfidenceChecksCallback
from allennlp.training.learning_rate_schedulers import LearningRateScheduler
from allennlp.training.momentum_schedulers import MomentumScheduler
from allennlp.training.moving_average import MovingAverage
from allennlp.training.optimizers import Optimizer

from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.nn.randomness import derived_seed
from allennlp_metaner.training.epoch_loss import EpochLoss
from allennlp_metaner.training.processes import BareModel, over_all_processes, rank_and_size
from allennlp_metaner.training.sharded_data_loader import ShardedDataLoader

GRACE_PERIOD = 5.0
"""So many seconds a process waits that failed beside others, which may be why."""


class _GivenGradient(torch.autograd.Function):
    """
    A scalar whose gradient was computed elsewhere. With it behind an ordinary loss, everything that
    AllenNLP's trainer does with a loss and its gradient (accumulation, regularisation, clipping, callbacks)
    holds for the meta-gradient, and for that of several processes, too.
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


@Trainer.register("reproducible", constructor="from_partial_objects")
class ReproducibleTrainer(GradientDescentTrainer):
    """
    A `GradientDescentTrainer` for which neither an interruption nor the number of processes makes a
    difference.

    Random numbers depend on the seed of the config and the number of the epoch and the update alone. So a run
    that was killed and goes on by `--recover` ends with the same weights as one that was not, as long as the
    data loader has `num_workers` = 0 (AllenNLP's default); its `training_loss` is that of the whole epoch,
    and the epoch that was the best stays so.

    `validation_loss` is the mean over sentences of the loss that each has by itself, whatever the batch size,
    for models that tell these apart (`losses` in their output).

    Under `distributed`, each process computes the gradient of its share of a batch, on the model itself, and
    one `all_reduce` adds them up. A model whose `sums_losses` is true has its losses added up too; of all
    others, they are averaged by the number of words or, without `mask`, sentences. Dropout of the processes
    differs. Data loaders must be "sharded".

    Registered as a `Trainer` with name "reproducible".

    # Parameters

    The same as those of `GradientDescentTrainer`.

    # Raises

    `ConfigurationError`, under `distributed`, for other data loaders, for `use_amp`, `evaluate_on_test` and
    another `ddp_accelerator`.
    """

    def __init__(
        self, model: Model, optimizer: torch.optim.Optimizer, data_loader: DataLoader, **kwargs: Any
    ) -> None:
        callbacks = kwargs.pop("callbacks", None) or []
        self._epoch_loss = next((c for c in callbacks if isinstance(c, EpochLoss)), EpochLoss())
        if self._epoch_loss not in callbacks:
            # In front: states of callbacks are found again by their position.
            callbacks = [self._epoch_loss, *callbacks]
        super().__init__(model, optimizer, data_loader, callbacks=callbacks, **kwargs)
        self._seed = torch.initial_seed()
        self._directory: Optional[str] = kwargs.get("serialization_dir")
        self._update = (-1, 0)
        # The sum of the losses of validated sentences, and their number.
        self._validated = (0.0, 0)
        if self._distributed:
            _refuse_undistributable(self, kwargs)

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
        ddp_accelerator: Optional[DdpAccelerator] = None,
        **kwargs: Any,
    ) -> Trainer:
        """Builds the trainer from a config, see `GradientDescentTrainer.from_partial_objects`."""
        if kwargs.get("distributed"):
            if not isinstance(ddp_accelerator, (BareModel, type(None))):
                raise ConfigurationError(
                    f"distributed.ddp_accelerator is a {type(ddp_accelerator).__name__}: this trainer adds "
                    "up gradients itself. Take it out of the config, or take the trainer 'gradient_descent'"
                )
            ddp_accelerator = ddp_accelerator or BareModel(
                local_rank=kwargs.get("local_rank"),
                world_size=kwargs.get("world_size"),
                cuda_device=kwargs.get("cuda_device", -1),
            )
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
            ddp_accelerator=ddp_accelerator,
            **kwargs,
        )

    def train(self) -> dict[str, Any]:
        try:
            return super().train()
        except RuntimeError:
            if self._distributed:
                # Perhaps that another process is gone. AllenNLP reports the one that ends first, and ends the
                # others, so this one leaves it the time.
                time.sleep(GRACE_PERIOD)
            raise

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
            if self._primary:
                self._save_averaged_model(self._best_model_filename)
            if self._distributed:
                dist.barrier()
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

    def _validation_loss(self, epoch: int) -> tuple[float, Optional[float], int]:
        self._validated = (0.0, 0)
        loss, reg_loss, num_batches = super()._validation_loss(epoch)
        total, number = self._validated
        # AllenNLP divides by the number.
        return (total, reg_loss, number) if number else (loss, reg_loss, num_batches)

    def batch_outputs(self, batch: TensorDict, for_training: bool) -> dict[str, torch.Tensor]:
        """
        What the model returns. In distributed training, its loss is that of all processes.
        """
        if not for_training:
            outputs: dict[str, torch.Tensor] = super().batch_outputs(batch, for_training=False)
            if "losses" in outputs:
                total, number = self._validated
                losses = outputs["losses"]
                self._validated = (total + losses.double().sum().item(), number + len(losses))
            return outputs
        # For dropout: other numbers for every batch and process, and the same after `--recover`.
        torch.manual_seed(derived_seed(self._seed, *self._count_batch(), rank_and_size()[0]))
        if not self._distributed:
            return super().batch_outputs(batch, for_training=True)
        parameters = [parameter for _, parameter in trainable_parameters(self.model)]
        outputs = self.model(**batch)
        gradient = torch.autograd.grad(outputs["loss"], parameters, allow_unused=True, materialize_grads=True)
        size = None if getattr(self.model, "sums_losses", False) else _size(batch, outputs)
        return outputs | self._with_gradient(*over_all_processes(outputs["loss"], gradient, size))

    def _with_gradient(self, loss: torch.Tensor, gradient: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """A loss with this gradient for the trainable parameters, and the regularisation that is due."""
        parameters = [parameter for _, parameter in trainable_parameters(self.model)]
        loss = _GivenGradient.apply(loss, gradient, *parameters)
        penalty = self.model.get_regularization_penalty()
        return {"loss": loss} if penalty is None else {"loss": loss + penalty, "reg_loss": penalty}

    def _count_batch(self) -> tuple[int, int]:
        """The number of this update, and which of the batches it accumulates this one is."""
        update, batch = self._update
        same = update == self._total_batches_completed
        self._update = (self._total_batches_completed, batch + 1 if same else 0)
        return self._update


def _size(batch: TensorDict, outputs: dict[str, torch.Tensor]) -> int:
    """What the loss of a batch is a mean over."""
    if "mask" in outputs:
        return int(outputs["mask"].sum())
    return len(batch["metadata"])


def _attach(average: MovingAverage, model: Model) -> None:
    """After loading a checkpoint, a moving average holds copies of the parameters, and all on the CPU."""
    parameters = dict(model.named_parameters())
    average._parameters = [(name, parameters[name]) for name, _ in average._parameters]
    for tensors in (average._shadows, average._backups):
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(parameters[name].device)


def _refuse_undistributable(trainer: ReproducibleTrainer, options: dict[str, Any]) -> None:
    loaders = {
        "data_loader": trainer.data_loader,
        "validation_data_loader": trainer._validation_data_loader,
    }
    for name, loader in loaders.items():
        if loader is not None and not isinstance(loader, ShardedDataLoader):
            raise ConfigurationError(
                f"with 'distributed', {name} must be of type 'sharded', not a {type(loader).__name__}: only "
                "then does the result not depend on the number of processes"
            )
    if options.get("use_amp"):
        raise ConfigurationError(
            "trainer.use_amp with 'distributed': loss scaling does not reach the gradients that processes "
            "add up. Take use_amp out of the config."
        )
    if setting(options.get("serialization_dir"), "evaluate_on_test"):
        raise ConfigurationError(
            "evaluate_on_test with 'distributed': one process alone would evaluate, and wait for the others. "
            "Take it out of the config, and run `allennlp evaluate` on the archive."
        )


def setting(serialization_dir: Optional[str], key: str) -> Any:
    """What the config of a run says at the top, `None` if nothing."""
    config = Path(serialization_dir or "") / "config.json"
    if not serialization_dir or not config.exists():
        return None
    return json.loads(config.read_text("utf-8")).get(key)
