"""
Layers that keep what the gradients of their weights are made of, and in which each task of a pass may have
weights of its own: one task after the other, or all in one operation where their weights are one tensor.
"""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, Optional, Union

import torch
from torch.nn import functional

from allennlp_metaner.nn.linear import linear
from allennlp_metaner.nn.task_rows import Padding, RowSlices

Keep = Callable[[torch.Tensor, torch.Tensor], None]
"""Takes the activations and the output gradients of a layer."""

Values = Union[Sequence[Any], torch.Tensor]
"""
Of a parameter: one a task, or a single one for all. Those of all tasks stacked, shape `(num_tasks, ...)`, are
used in one operation.
"""


def by_task(
    function: Callable[..., torch.Tensor], rows: RowSlices, inputs: torch.Tensor, *values: Values
) -> torch.Tensor:
    """
    The outputs of a layer for the rows of each task, one below the other.

    # Parameters

    function : `Callable[..., torch.Tensor]`
        Takes inputs and a value of each parameter.
    rows : `RowSlices`
        Of each task.
    inputs : `torch.Tensor`
    values : `Values`
        Of each parameter.
    """
    if all(len(each) == 1 for each in values):
        return function(inputs, *(each[0] for each in values))
    if any(isinstance(each, torch.Tensor) for each in values):
        return _STACKED[function](rows.padding(inputs.device), inputs, *values)
    # One after the other, as they are needed; a single one again and again.
    of_tasks = zip(rows, *(cycle(each) if len(each) == 1 else each for each in values), strict=False)
    return torch.cat([function(inputs[own], *of_task) for own, *of_task in of_tasks])


def by_row(values: Values, rows: RowSlices, inputs: torch.Tensor) -> torch.Tensor:
    """The values of a vector, to be multiplied with or added to `inputs`."""
    if len(values) == 1:
        return values[0]
    stacked = values if isinstance(values, torch.Tensor) else torch.stack(list(values))
    return rows.padding(inputs.device).of_rows(stacked, inputs)


def _input_gradient(output_gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return linear(output_gradient, weight.t())


def _stacked_linear(padding: Padding, inputs: torch.Tensor, weights: Values, biases: Values) -> torch.Tensor:
    if not isinstance(weights, torch.Tensor) or len(weights) == 1:
        return linear(inputs, weights[0]) + padding.of_rows(_tensor(biases), inputs)
    padded = padding.pad(inputs, zeros=False)
    rows, matrices = padded.flatten(1, -2), weights.transpose(1, 2)
    if isinstance(biases, torch.Tensor):
        outputs = torch.baddbmm(biases.unsqueeze(1), rows, matrices)
    elif biases[0] is not None:
        outputs = torch.baddbmm(biases[0], rows, matrices)
    else:
        outputs = torch.bmm(rows, matrices)
    return padding.unpad(outputs.view(*padded.shape[:-1], -1))


def _stacked_input_gradient(
    padding: Padding, output_gradient: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    padded = padding.pad(output_gradient, zeros=False)
    return padding.unpad(torch.bmm(padded.flatten(1, -2), weights).view(*padded.shape[:-1], -1))


def _stacked_embedding(
    padding: Padding, inputs: torch.Tensor, tables: torch.Tensor, padding_index: Any
) -> torch.Tensor:
    return tables[padding.tasks.view(-1, *[1] * (inputs.dim() - 1)), inputs]


def _tensor(values: Values) -> torch.Tensor:
    assert isinstance(values, torch.Tensor)
    return values


_STACKED: dict[Any, Callable[..., torch.Tensor]] = {
    linear: _stacked_linear,
    _input_gradient: _stacked_input_gradient,
    functional.embedding: _stacked_embedding,
}
"""Layers of all tasks at once, for those of one task."""


class LinearFunction(torch.autograd.Function):
    """A linear layer whose backward pass keeps activations and output gradients instead of their product."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weights: Values,
        biases: Values,
        rows: RowSlices,
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
        ctx.keep(inputs.detach(), output_gradient)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = by_task(_input_gradient, ctx.rows, output_gradient, ctx.weights)
        return input_gradient, None, None, None, None, None


def layer_norm(
    inputs: torch.Tensor, weight: Optional[torch.Tensor], bias: Optional[torch.Tensor], eps: float
) -> torch.Tensor:
    """Layer normalisation whose weights may differ from row to row."""
    if all(each is None or each.dim() == 1 for each in (weight, bias)):
        return functional.layer_norm(inputs, inputs.shape[-1:], weight, bias, eps)
    normalized = functional.layer_norm(inputs, inputs.shape[-1:], eps=eps)
    scaled = normalized if weight is None else normalized * weight
    return scaled if bias is None else scaled + bias


class LayerNormFunction(torch.autograd.Function):
    """Layer normalisation whose backward pass keeps normalised inputs and output gradients."""

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
        ctx.keep(normalized, output_gradient)
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


class EmbeddingFunction(torch.autograd.Function):
    """A look-up whose backward pass keeps which rows had which gradient, and builds no table of them."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weights: Values,
        rows: RowSlices,
        anchor: torch.Tensor,
        keep: Keep,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.keep = keep
        return by_task(functional.embedding, rows, inputs, weights)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        ctx.keep(inputs.unsqueeze(-1), output_gradient.contiguous())
        return None, None, None, None, None
