"""The loss of an epoch that may have been interrupted, and a warning when it shows divergence."""

import logging
import math
from typing import Any, Optional

from allennlp.data import TensorDict
from allennlp.training import GradientDescentTrainer, TrainerCallback

from allennlp_metaner.data.sentence import LABEL_NAMESPACE
from allennlp_metaner.training.processes import rank_and_size

logger = logging.getLogger(__name__)

# So many times the loss of a model that gives all labels the same probability.
_ABSURD = 10


@TrainerCallback.register("epoch_loss")
class EpochLoss(TrainerCallback):
    """
    Adds up the losses of an epoch's batches. The sum is part of the checkpoint, so that a run that goes on
    inside of an epoch still knows the loss of its beginning. After an epoch whose loss is infinite, or more
    than 10 times that of guessing, a warning is logged.

    Registered as a `TrainerCallback` with name "epoch_loss". The trainers "reproducible" and "meta" have one
    anyway.
    """

    def __init__(self, serialization_dir: Optional[str] = None) -> None:
        super().__init__(serialization_dir or "")
        self.loss = 0.0
        self.reg_loss = 0.0
        self._num_batches = 0
        self._num_sentences = 0

    def on_batch(
        self,
        trainer: GradientDescentTrainer,
        batch_inputs: list[TensorDict],
        batch_outputs: list[dict[str, Any]],
        batch_metrics: dict[str, Any],
        epoch: int,
        batch_number: int,
        is_training: bool,
        is_primary: bool = True,
        batch_grad_norm: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        if not is_training:
            return
        if batch_number == 1:
            self.load_state_dict({})
        self.loss += batch_metrics["batch_loss"]
        self.reg_loss += (batch_metrics.get("batch_reg_loss") or 0.0) * len(batch_inputs)
        self._num_batches += 1
        self._num_sentences = max(
            self._num_sentences, *(len(batch.get("metadata", ())) for batch in batch_inputs)
        )

    def on_epoch(
        self,
        trainer: GradientDescentTrainer,
        metrics: dict[str, Any],
        epoch: int,
        is_primary: bool = True,
        **kwargs: Any,
    ) -> None:
        if not self._num_batches:
            return
        loss = self.loss / self._num_batches
        max_loss_weight = getattr(trainer.model, "max_loss_weight", 0.0)
        num_labels = trainer.model.vocab.get_vocab_size(LABEL_NAMESPACE)
        # Losses are those of all processes.
        num_sentences = self._num_sentences * rank_and_size()[1]
        guessing = num_sentences * (1 + max_loss_weight) * math.log(max(num_labels, 2))
        # Not a number is not below anything.
        if not loss <= _ABSURD * guessing:
            logger.warning(
                "After epoch %d, the mean loss of a batch is %.4g; a model that guesses has at most %.4g. "
                "Training has diverged: take lower learning rates, or a warm-up.",
                epoch,
                loss,
                guessing,
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "reg_loss": self.reg_loss,
            "num_batches": self._num_batches,
            "num_sentences": self._num_sentences,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loss = state_dict.get("loss", 0.0)
        self.reg_loss = state_dict.get("reg_loss", 0.0)
        self._num_batches = state_dict.get("num_batches", 0)
        self._num_sentences = state_dict.get("num_sentences", 0)
