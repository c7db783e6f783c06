"""
Gradients of parameters for each task of a pass.

The gradient of a layer's weights is a product of two matrices, the layer's inputs (activations) and the
gradient of its outputs, with a row for each token. The layers here keep the two instead of their product. So
the sentences of many tasks can share a pass, even with weights of their own. Each task's gradient, or the sum
over tasks, is then computed from its rows when it is needed, a layer at a time.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import cycle
from typing import Any, NamedTuple, Optional

import torch
from torch.nn import functional

from allennlp_metaner.nn.linear import linear
from allennlp_metaner.nn.parameters import NamedParameters

Product = Callable[[Optional[torch.Tensor], torch.Tensor], torch.Tensor]
"""From activations and output gradients to the gradient of a parameter (a "grad sampler")."""

Keep = Callable[[torch.Tensor, torch.Tensor], None]
"""Takes the activations and the output gradients of a layer."""


def by_task(
    function: Callable[..., torch.Tensor], rows: Sequence[slice], inputs: torch.Tensor, *values: Sequence[Any]
) -> torch.Tensor:
    """
    The outputs of a layer for the rows of each task, one below the other.

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


class LinearFunction(torch.autograd.Function):
    """A linear layer whose backward pass keeps activations and output gradients instead of their product."""

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
        ctx.keep(inputs.detach(), output_gradient)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = by_task(_input_gradient, ctx.rows, output_gradient, ctx.weights)
        return input_gradient, None, None, None, None, None


def _input_gradient(output_gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return linear(output_gradient, weight.t())


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
        ctx.keep(inputs.unsqueeze(-1), output_gradient.contiguous())
        return None, None, None, None, None


class _Use(NamedTuple):
    """
    One use of a parameter in a forward pass. Its gradient is `product` of the two tensors with all but the
    last dimension flattened; `rows` are those of each task.
    """

    product: Product
    activations: Optional[torch.Tensor]
    output_gradient: torch.Tensor
    rows: Sequence[slice]


def matrix_product(activations: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of the matrix of a linear layer."""
    assert activations is not None
    return linear(output_gradient.t(), activations.t())


def scale_product(activations: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of the scale of a layer normalisation."""
    assert activations is not None
    return (activations * output_gradient).sum(0)


def bias_product(activations: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of a bias."""
    return output_gradient.sum(0)


@cache
def table_product(num_rows: int, padding: Optional[int]) -> Product:
    """For the gradient of an embedding of so many rows, of which one may have none."""

    def product(activations: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
        assert activations is not None
        return torch.ops.aten.embedding_dense_backward(
            output_gradient, activations.flatten(), num_rows, -1 if padding is None else padding, False
        )

    return product


class PerTaskGradients:
    """
    The activations and output gradients that the gradients of the parameters are made of, of one pass.

    # Parameters

    parameters : `NamedParameters`
    """

    def __init__(self, parameters: NamedParameters) -> None:
        self._parameters = parameters
        self._uses: list[list[_Use]] = [[] for _ in parameters]
        self._others: dict[int, torch.Tensor] = {}

    def of_task(self, index: int, task: int) -> torch.Tensor:
        """
        The gradient of one parameter.

        # Parameters

        index : `int`
            The parameter's position in the list.
        task : `int`
            The position in the pass of the task whose loss is differentiated.
        """
        return _gradient([self], index, task)

    def of_tasks(self, indices: Sequence[int], first: int, num_tasks: int) -> torch.Tensor:
        """
        The gradients of several parameters, each flattened, end to end, for several tasks.

        # Parameters

        indices : `Sequence[int]`
            Of the parameters.
        first : `int`
            The position of the first task in the pass.
        num_tasks : `int`

        # Returns

        `torch.Tensor`
            Shape `(num_tasks, num_elements)`.
        """
        return torch.stack(
            [
                torch.cat([self.of_task(index, task).flatten() for index in indices])
                for task in range(first, first + num_tasks)
            ]
        )

    def keep(self, rows: Sequence[slice], *uses: tuple[Optional[int], Product]) -> Keep:
        """What notes the use of some parameters in one layer, during the backward pass."""

        def keep(activations: torch.Tensor, output_gradient: torch.Tensor) -> None:
            for index, product in uses:
                if index is not None:
                    own = None if product is bias_product else activations
                    self._uses[index].append(_Use(product, own, output_gradient, rows))

        return keep

    def keep_gradient(self, index: int, gradient: torch.Tensor) -> None:
        """Note a gradient that autograd has computed, in a pass of one task."""
        self._others[index] = gradient

    @staticmethod
    def total(passes: "Sequence[PerTaskGradients]", index: int) -> torch.Tensor:
        """The gradient of one parameter, summed over all tasks of all passes."""
        return _gradient(passes, index)


def _gradient(passes: Sequence[PerTaskGradients], index: int, task: Optional[int] = None) -> torch.Tensor:
    """Of one task, or the sum over all."""
    by_product: dict[Any, list[tuple[Optional[torch.Tensor], torch.Tensor]]] = {}
    for each in passes:
        for product, activations, output_gradient, rows in each._uses[index]:
            own = slice(None) if task is None else rows[task]
            by_product.setdefault(product, []).append(
                (None if activations is None else _flat(activations[own]), _flat(output_gradient[own]))
            )
    # One product of the rows of all tasks is also their sum.
    found = [
        product(None if pairs[0][0] is None else _cat([x for x, _ in pairs]), _cat([y for _, y in pairs]))
        for product, pairs in by_product.items()
    ]
    found += [each._others[index] for each in passes if index in each._others]
    if not found:
        return torch.zeros_like(passes[0]._parameters[index][1])
    return sum(found[1:], start=found[0])


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1, tensor.size(-1))


def _cat(tensors: list[Any]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
