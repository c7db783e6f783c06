"""The loss of the tagger: mean over the tokens of a sentence, plus the worst token."""

from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as functional

from allennlp_metaner.nn.task_rows import Padding

REDUCTIONS = ("sentence", "token")
"""How [`max_loss`](#max_loss) puts a batch together; "none" leaves it apart."""


def token_losses(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    The cross-entropy of every token.

    # Parameters

    logits : `torch.Tensor`
        Shape `(num_sentences, num_tokens, num_labels)`.
    targets : `torch.Tensor`
        Label indices, shape `(num_sentences, num_tokens)`. Ignored where `mask` is false.
    mask : `torch.BoolTensor`
        Shape `(num_sentences, num_tokens)`.

    # Returns

    `torch.Tensor`
        Shape `(num_sentences, num_tokens)`, 0 where `mask` is false.
    """
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view_as(targets) * mask


def max_loss(
    losses: torch.Tensor,
    mask: torch.Tensor,
    max_loss_weight: float,
    reduction: str = "sentence",
    sizes: Optional[Sequence[int]] = None,
) -> torch.Tensor:
    """
    Eq. 3 (`max_loss_weight` = 0) and Eq. 13 of the paper.

    # Parameters

    losses : `torch.Tensor`
        The cross-entropy of every token, at least 0, and 0 where `mask` is false.
        Shape `(num_sentences, num_tokens)`.
    mask : `torch.BoolTensor`
        Which tokens count, shape `(num_sentences, num_tokens)`. A sentence without any counts 0.
    max_loss_weight : `float`
        lambda, the weight of the sentence's highest token loss. 0 leaves the term out.
    reduction : `str`, optional (default = `"sentence"`)
        "sentence" (the paper): every sentence is its mean plus lambda times its maximum; sentences are added
        up. "token" (the authors' published code): the mean over all tokens of the batch, plus lambda times
        the mean over the sentences of their maxima. "none": the loss of each sentence by itself, which is the
        same for both.
    sizes : `Sequence[int]`, optional (default = `None`)
        If given, the sentences are those of several batches, so many each, which have a loss of their own.

    # Returns

    `torch.Tensor`
        A scalar; for "none", shape `(num_sentences,)`; with `sizes`, shape `(num_batches,)`.
    """
    if sizes is not None:
        return _of_batches(losses, mask, max_loss_weight, reduction, sizes)
    maxima = losses.amax(dim=1)
    if reduction == "token":
        mean = losses.sum() / mask.sum().clamp(min=1)
        return mean + max_loss_weight * maxima.mean() if max_loss_weight else mean
    means = losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    alone = means + max_loss_weight * maxima if max_loss_weight else means
    return alone if reduction == "none" else alone.sum()


def _of_batches(
    losses: torch.Tensor, mask: torch.Tensor, max_loss_weight: float, reduction: str, sizes: Sequence[int]
) -> torch.Tensor:
    padding = Padding(sizes, losses.device)
    if reduction == "sentence":
        return padding.pad(max_loss(losses, mask, max_loss_weight, "none")).sum(dim=1)
    numbers = padding.pad(mask.sum(dim=1)).sum(dim=1)
    means = padding.pad(losses.sum(dim=1)).sum(dim=1) / numbers.clamp(min=1)
    if not max_loss_weight:
        return means
    maxima = padding.pad(losses.amax(dim=1)).sum(dim=1)
    return means + max_loss_weight * maxima / torch.tensor(sizes, device=losses.device)
