"""The loss of a student that learns from a teacher's probabilities."""

from typing import Optional

import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.nn.max_loss import token_losses

SOFT_LABEL_LOSSES = ("cross_entropy", "squared_error")
"""How far a student's probabilities are from the teacher's, see [`soft_token_losses`](#soft_token_losses)."""


def soft_token_losses(
    logits: torch.Tensor, probabilities: torch.Tensor, mask: torch.Tensor, kind: str
) -> torch.Tensor:
    """
    The distance of every token's predicted probabilities from given ones.

    # Parameters

    logits : `torch.Tensor`
        Those of the student, shape `(num_sentences, num_tokens, num_labels)`.
    probabilities : `torch.Tensor`
        Those of the teacher, of the same shape.
    mask : `torch.BoolTensor`
        Shape `(num_sentences, num_tokens)`.
    kind : `str`
        "cross_entropy", or "squared_error": the mean over labels of the squared difference of probabilities
        (Wu et al., ACL 2020), whose gradient is much smaller.

    # Returns

    `torch.Tensor`
        Shape `(num_sentences, num_tokens)`, 0 where `mask` is false.
    """
    if kind == "cross_entropy":
        losses = -(probabilities * logits.log_softmax(dim=-1)).sum(dim=-1)
    else:
        losses = (logits.softmax(dim=-1) - probabilities).pow(2).mean(dim=-1)
    return losses * mask


class StudentLoss:
    """
    The losses of the tokens of a student: by its teacher's probabilities and, if asked for, by its tags.

    # Parameters

    kind : `str`
        See [`soft_token_losses`](#soft_token_losses).
    hard_label_weight : `float`
        How much the cross-entropy of the tags adds.

    # Raises

    `ConfigurationError`, if an argument is out of range.
    """

    def __init__(self, kind: str, hard_label_weight: float) -> None:
        if kind not in SOFT_LABEL_LOSSES or hard_label_weight < 0:
            raise ConfigurationError(
                f"soft_label_loss={kind!r} must be one of {', '.join(SOFT_LABEL_LOSSES)}, and "
                f"hard_label_weight={hard_label_weight} at least 0"
            )
        self.kind = kind
        self.hard_label_weight = hard_label_weight

    def __call__(
        self,
        logits: torch.Tensor,
        tags: torch.Tensor,
        mask: torch.Tensor,
        probabilities: torch.Tensor,
        word_weights: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """
        # Parameters

        logits : `torch.Tensor`
            Those of the student, shape `(num_sentences, num_words, num_labels)`.
        tags : `torch.LongTensor`
            Shape `(num_sentences, num_words)`.
        mask : `torch.BoolTensor`
            Shape `(num_sentences, num_words)`.
        probabilities : `torch.Tensor`
            Those of the teacher, of the shape of `logits`.
        word_weights : `Optional[torch.Tensor]`
            How much each word counts, shape `(num_sentences, num_words)`; `None`: all alike.

        # Returns

        `torch.Tensor`
            Shape `(num_sentences, num_words)`.
        """
        losses = soft_token_losses(logits, probabilities, mask, self.kind)
        if self.hard_label_weight:
            losses = losses + self.hard_label_weight * token_losses(logits, tags, mask)
        return losses if word_weights is None else losses * word_weights
