"""The loss of a student that learns from a teacher's probabilities."""

import torch

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
