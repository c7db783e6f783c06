"""Predictions that are no numbers are an error: their best tag would be the first one, mostly "O"."""

import torch
from allennlp.common.checks import ConfigurationError


def check_finite(logits: torch.Tensor, mask: torch.Tensor) -> None:
    """
    # Parameters

    logits : `torch.Tensor`
        Shape `(num_sentences, num_words, num_labels)`.
    mask : `torch.BoolTensor`
        Shape `(num_sentences, num_words)`. What it leaves out may be anything.

    # Raises

    `ConfigurationError`, if a word's logits are not all finite.
    """
    wrong = (mask & ~logits.isfinite().all(dim=-1)).any(dim=-1)
    if wrong.any():
        raise ConfigurationError(
            f"the predictions for {int(wrong.sum())} of {len(wrong)} sentences are NaN or infinite, so there "
            "are no tags. Is the learning rate of the adaptation too high "
            "(model.adaptation.inner_loop.optimizer.lr), or that of the training? Are the weights damaged, "
            f"or in half precision, where numbers overflow (here: {logits.dtype})?"
        )
