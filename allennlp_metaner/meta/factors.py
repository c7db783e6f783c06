"""
Layers whose backward pass keeps the factors of parameters' gradients, instead of multiplying them. Their
parameters have one value for all rows of the inputs, or one for the rows of each task.
"""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, Optional

import torch
from torch.nn import functional

from allennlp_metaner.nn.linear import linear

Keep = Callable[[torch.Tensor, torch.Tensor, torch.dtype], None]


def by_task(
    function: Callable[..., torch.Tensor], rows: Sequence[slice], inputs: torch.Tensor, *values: Sequence[Any]
) -> torch.Tensor:
    """
    The outputs of `function` for the rows of each task, one below the other.

    # Parameters

    function : `Callable[..., torch.Tensor]`
        Takes inputs and a value of each parameter.
    rows : `Sequence[slice]`
        Of each task.
    inputs : `torch.Tensor`
    values : `Sequence[Any]`
        Of each parameter: one a task, or a single one for all.
    """
    if all(len(each) == 1 for each in values):
        return function(inputs, *(value for (value,) in values))
    # One after the other, as they are needed; a single one again and again.
    of_tasks = zip(rows, *(cycle(each) if len(each) == 1 else each for each in values), strict=False)
    return torch.cat([function(inputs[own], *of_task) for own, *of_task in of_tasks])


def by_row(values: Sequence[torch.Tensor], sizes: Sequence[int], inputs: torch.Tensor) -> torch.Tensor:
    """The values of a vector, to be multiplied with or added to `inputs`."""
    if len(values) == 1:
        return values[0]
    counts = torch.tensor(sizes, device=inputs.device)
    of_rows = torch.stack(list(values)).repeat_interleave(counts, dim=0, output_size=len(inputs))
    return of_rows.view(len(inputs), *[1] * (inputs.dim() - 2), -1)


class Linear(torch.autograd.Function):
    """A linear layer whose backward pass keeps its factors instead of multiplying them."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weights: Sequence[torch.Tensor],
        biases: Sequence[Optional[torch.Tensor]],
        rows: Sequence[slice],
        anchor: torch.Tensor,
        keep: Keep,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.weights, ctx.rows, ctx.keep = weights, rows, keep
        return by_task(linear, rows, inputs, weights, biases)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        output_gradient = output_gradient.contiguous()
        ctx.keep(inputs.detach(), output_gradient, ctx.weights[0].dtype)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = by_task(_backward, ctx.rows, output_gradient, ctx.weights)
        return input_gradient, None, None, None, None, None


def _backward(output_gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return linear(output_gradient, weight.t())


class LayerNorm(torch.autograd.Function):
    """Layer normalisation whose backward pass keeps the factors of its parameters' gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        anchor: torch.Tensor,
        eps: float,
        keep: Keep,
    ) -> torch.Tensor:
        # The weight may differ from row to row, which PyTorch's own operation does not know.
        normalized, mean, inverse_deviation = torch.native_layer_norm(
            inputs, [inputs.size(-1)], None, None, eps
        )
        ctx.save_for_backward(inputs, normalized, weight, mean, inverse_deviation)
        ctx.keep = keep
        return torch.addcmul(bias, normalized, weight)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        inputs, normalized, weight, mean, inverse_deviation = ctx.saved_tensors
        output_gradient = output_gradient.contiguous()
        ctx.keep(normalized, output_gradient, weight.dtype)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = torch.ops.aten.native_layer_norm_backward(
                output_gradient * weight,
                inputs,
                [inputs.size(-1)],
                mean,
                inverse_deviation,
                None,
                None,
                [True, False, False],
            )[0]
        return input_gradient, None, None, None, None, None


class Embedding(torch.autograd.Function):
    """A look-up whose backward pass keeps which rows had which gradient, and makes no table of them."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weights: Sequence[torch.Tensor],
        rows: Sequence[slice],
        anchor: torch.Tensor,
        keep: Keep,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.keep = keep
        return by_task(functional.embedding, rows, inputs, weights)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        ctx.keep(inputs.unsqueeze(-1), output_gradient.contiguous(), output_gradient.dtype)
        return None, None, None, None, None
