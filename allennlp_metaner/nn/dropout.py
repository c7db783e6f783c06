"""Dropout that draws from a generator of its own, and draws little."""

from typing import Any, Optional, Union

import torch
from torch.nn import functional

from allennlp_metaner.nn import randomness
from allennlp_metaner.nn.randomness import BITS, TaskGenerators, kept_elements

Randomness = Union[torch.Generator, TaskGenerators]
"""Where dropout draws from: one generator, or one for each task of a pass."""


def dropout(
    inputs: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: Optional[Randomness] = None,
) -> torch.Tensor:
    """
    `torch.nn.functional.dropout` with a generator. On the CPU, where PyTorch draws 64 random bits for every
    element, this draws 16.

    # Parameters

    inputs : `torch.Tensor`
    p : `float`, optional (default = `0.5`)
        The probability that an element becomes zero, to a precision of 2^-16 on the CPU.
    training : `bool`, optional (default = `True`)
        If false, nothing happens.
    inplace : `bool`, optional (default = `False`)
        Makes no difference to the result, and is ignored.
    generator : `Randomness`, optional (default = `None`)
        On the device of `inputs`; `None` means PyTorch's global one.

    # Returns

    `torch.Tensor`
    """
    kept = 1.0 - p if randomness.hashes(inputs.device) else round((1.0 - p) * 2**BITS) / 2**BITS
    if not training or kept == 1.0:
        return inputs
    keep = _keep(inputs, p, generator)
    return inputs * (keep * (1.0 / kept if kept else 0.0)).to(inputs.dtype)


def _keep(inputs: torch.Tensor, p: float, generator: Optional[Randomness]) -> torch.Tensor:
    if isinstance(generator, TaskGenerators):
        return generator.kept_elements(inputs, p)
    return kept_elements(inputs.shape, p, inputs.device, generator)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: Optional[torch.Tensor] = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Optional[float] = None,
    generator: Optional[Randomness] = None,
    **kwargs: Any,
) -> torch.Tensor:
    """
    `torch.nn.functional.scaled_dot_product_attention` with a generator for its dropout, and as products of
    all heads. PyTorch's own, on CPUs, consists of many small ones. With lower precision each of these goes to
    oneDNN, which takes longer than the products themselves.
    """
    lower_precision = torch.get_float32_matmul_precision() != "highest" and query.device.type == "cpu"
    if not (dropout_p or lower_precision) or kwargs:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **kwargs
        )
    scores = query @ key.transpose(-2, -1) * (scale or query.size(-1) ** -0.5)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if allowed else scores + attn_mask
    return dropout(scores.softmax(dim=-1), dropout_p, generator=generator) @ value
