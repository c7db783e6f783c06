"""Meta-training on AllenNLP's gradient-descent trainer."""

from typing import Any, Optional

import torch
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader, TensorDict
from allennlp.models import Model
from allennlp.training import Checkpointer, Trainer, TrainerCallback
from allennlp.training.learning_rate_schedulers import LearningRateScheduler
from allennlp.training.momentum_schedulers import MomentumScheduler
from allennlp.training.moving_average import MovingAverage
from allennlp.training.optimizers import Optimizer

from allennlp_metaner.data.entity_masking_indexer import refuse_masking
from allennlp_metaner.meta.meta_gradients import FirstOrderMaml, MetaGradient
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.nn.randomness import derived_seed
from allennlp_metaner.training.processes import over_all_processes, rank_and_size
from allennlp_metaner.training.reproducible_trainer import ReproducibleTrainer, setting


@Trainer.register("meta", constructor="from_partial_objects")
class MetaTrainer(ReproducibleTrainer):
    """
    A [`ReproducibleTrainer`](./reproducible_trainer.md) whose gradient is the meta-gradient of a batch of
    pseudo tasks (Eq. 7-12). All that AllenNLP users know of a trainer works as usual: callbacks, schedules,
    checkpoints and `--recover`, patience, clipping, gradient accumulation (batches of tasks are averaged),
    and `distributed`.

    A batch is one meta update, so the data loader's `batch_size` is the number of tasks of an update, under
    `distributed` of each process, and `batches_per_epoch` the number of updates between two validations.
    Validation is without adaptation.

    Random numbers of a task depend on the seed of the config, the number of the epoch and the update and the
    task's place in the update alone: two processes with 4 tasks each do what one does with 8.

    Mixed precision (`use_amp`) and `evaluate_on_test` are refused.

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
        _refuse_mixed_precision(kwargs)
        _refuse_too_few(data_loader)
        super().__init__(model, optimizer, data_loader, **kwargs)
        validation_reader = getattr(self._validation_data_loader, "reader", None)
        if validation_reader is not None:
            refuse_masking(validation_reader, "validation")
        _refuse_partial(self._validation_data_loader)
        self._meta_gradient = meta_gradient or FirstOrderMaml()
        self._schedule_inner_lr = schedule_inner_lr

    @classmethod
    def from_partial_objects(  # type: ignore[override]
        cls,
        model: Model,
        serialization_dir: str,
        data_loader: DataLoader,
        validation_data_loader: Optional[DataLoader] = None,
        # As in `ReproducibleTrainer`.
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
        _refuse_mixed_precision(kwargs)
        return super().from_partial_objects(
            model=model,
            serialization_dir=serialization_dir,
            data_loader=data_loader,
            validation_data_loader=validation_data_loader,
            optimizer=optimizer,
            learning_rate_scheduler=learning_rate_scheduler,
            momentum_scheduler=momentum_scheduler,
            moving_average=moving_average,
            checkpointer=checkpointer,
            callbacks=callbacks,
            meta_gradient=meta_gradient,
            schedule_inner_lr=schedule_inner_lr,
            **kwargs,
        )

    def train(self) -> dict[str, Any]:
        if setting(self._directory, "evaluate_on_test"):
            raise ConfigurationError(
                "evaluate_on_test labels the test data without adaptation, which is not the method's result. "
                "Take it out of the config, and run `allennlp evaluate` on the archive."
            )
        return super().train()

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
        tasks: Any = batch["task"]
        rank, num_processes = rank_and_size()
        loss, gradient = self._meta_gradient(
            self.model,  # type: ignore[arg-type]
            trainable_parameters(self.model),
            tasks,
            seed=derived_seed(self._seed, *self._count_batch()),
            learning_rate_scale=self._learning_rate_scale(),
            # Of every batch, this process has each `num_processes`-th task, beginning with its own number.
            indices=range(rank, rank + num_processes * len(tasks), num_processes),
        )
        if self._distributed:
            size = len(tasks) if self._meta_gradient.reduction == "mean" else None
            loss, gradient = over_all_processes(loss, gradient, size)
        return self._with_gradient(loss, gradient)

    def _learning_rate_scale(self) -> float:
        group = self.optimizer.param_groups[0]
        if not self._schedule_inner_lr or not group.get("initial_lr"):
            return 1.0
        return group["lr"] / group["initial_lr"]


def _refuse_too_few(data_loader: DataLoader) -> None:
    if not getattr(data_loader, "drop_last", False):
        return
    # Where the loader keeps few instances in memory, their number is not known.
    instances, batch_size = getattr(data_loader, "_instances", None), getattr(data_loader, "batch_size", None)
    if instances is not None and batch_size is not None and len(instances) < batch_size:
        raise ConfigurationError(
            f"the training data has {len(instances)} sentences, but a batch (of all processes) needs "
            f"data_loader.batch_size={batch_size} of them, and data_loader.drop_last leaves smaller batches "
            "out, so there is nothing to train on. Give more sentences, a smaller batch (in the shipped "
            "configs METANER_BATCH_SIZE), or drop_last = false"
        )


def _refuse_partial(validation_data_loader: Optional[DataLoader]) -> None:
    for option in ("batches_per_epoch", "drop_last"):
        value = getattr(validation_data_loader, option, None)
        if value:
            raise ConfigurationError(
                f"the validation data loader has {option}={value}, so validation would leave out or repeat "
                "sentences. Give the config a 'validation_data_loader' of its own, without that option."
            )


def _refuse_mixed_precision(options: dict[str, Any]) -> None:
    if options.get("use_amp"):
        raise ConfigurationError(
            "trainer.use_amp: loss scaling does not reach the inner steps, so the trainer 'meta' cannot use "
            "mixed precision. Take use_amp out of the config."
        )
