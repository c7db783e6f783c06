"""
Gradients of parameters for each task of a pass.

The gradient of a layer's weights is a product of two matrices, the layer's inputs (activations) and the
gradient of its outputs, with a row for each token. The layers of [`task_layers`](./task_layers.md) keep the
two instead of their product. So the sentences of many tasks can share a pass, even with weights of their own.
Each task's gradient, or the sum over tasks, is then computed from its rows when it is needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch

from allennlp_metaner.nn.linear import linear
from allennlp_metaner.nn.parameters import NamedParameters
from allennlp_metaner.nn.task_rows import Padding, RowSlices

Product = Callable[[Optional[torch.Tensor], torch.Tensor], torch.Tensor]
"""From activations and output gradients to the gradient of a parameter (a "grad sampler")."""

StackedProduct = Callable[[Optional[torch.Tensor], torch.Tensor], torch.Tensor]
"""The same for several tasks at once, shapes `(num_tasks, num_rows, dim)`, with zeros as padding."""


class _Use(NamedTuple):
    """
    One use of a parameter in a forward pass. Its gradient is `product` of the two tensors with all but the
    last dimension flattened; `rows` are those of each task.
    """

    product: Product
    activations: Optional[torch.Tensor]
    output_gradient: torch.Tensor
    rows: RowSlices


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


def _stacked_matrix_product(
    activations: Optional[torch.Tensor], output_gradient: torch.Tensor
) -> torch.Tensor:
    assert activations is not None
    return torch.bmm(output_gradient.transpose(1, 2), activations)


def _stacked_scale_product(
    activations: Optional[torch.Tensor], output_gradient: torch.Tensor
) -> torch.Tensor:
    assert activations is not None
    return (activations * output_gradient).sum(1)


def _stacked_bias_product(activations: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
    return output_gradient.sum(1)


_STACKED_PRODUCTS: dict[Any, StackedProduct] = {
    matrix_product: _stacked_matrix_product,
    scale_product: _stacked_scale_product,
    bias_product: _stacked_bias_product,
}


@dataclass(frozen=True)
class TableProduct:
    """The gradient of an embedding of so many rows, of which one may have none; also of several tasks."""

    num_rows: int
    padding: Optional[int]

    def __call__(self, activations: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
        assert activations is not None
        if output_gradient.dim() == 2:
            return self._of(output_gradient, activations.flatten(), 1)
        num_tasks = len(activations)
        firsts = torch.arange(0, num_tasks * self.num_rows, self.num_rows, device=activations.device)
        rows = (activations.squeeze(2) + firsts.unsqueeze(1)).flatten()
        found = self._of(output_gradient.flatten(0, 1), rows, num_tasks)
        return found.view(num_tasks, self.num_rows, -1)

    def _of(self, output_gradient: torch.Tensor, rows: torch.Tensor, num_tables: int) -> torch.Tensor:
        number = self.num_rows * num_tables
        found = torch.ops.aten.embedding_dense_backward(output_gradient, rows, number, -1, False)
        if self.padding is not None:
            found[self.padding :: self.num_rows] = 0.0
        return found


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
        self._padded: Optional[tuple[torch.Tensor, Padding, torch.Tensor]] = None

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

    def stacked(self, indices: Sequence[int], first: int, num_tasks: int) -> torch.Tensor:
        """The same as [`of_tasks`](#of_tasks), by one product of all tasks for each use of a parameter."""
        found = [self._stacked(index, first, num_tasks).flatten(1) for index in indices]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _stacked(self, index: int, first: int, num_tasks: int) -> torch.Tensor:
        found = [
            _STACKED_PRODUCTS.get(use.product, use.product)(*self._padded_use(use, first, num_tasks))
            for use in self._uses[index]
        ]
        if index in self._others:
            found.append(self._others[index].unsqueeze(0))
        if not found:
            parameter = self._parameters[index][1]
            return parameter.new_zeros(num_tasks, *parameter.shape)
        return sum(found[1:], start=found[0])

    def _padded_use(
        self, use: _Use, first: int, num_tasks: int
    ) -> tuple[Optional[torch.Tensor], torch.Tensor]:
        padding = use.rows.padding(use.output_gradient.device, first, num_tasks)
        own = use.rows.of(first, num_tasks)
        # A matrix and its bias have the same one.
        if (
            self._padded is None
            or self._padded[0] is not use.output_gradient
            or self._padded[1] is not padding
        ):
            padded = padding.pad(use.output_gradient[own]).flatten(1, -2)
            self._padded = use.output_gradient, padding, padded
        activations = use.activations
        if activations is not None:
            activations = padding.pad(activations[own], zeros=False).flatten(1, -2)
        return activations, self._padded[2]

    def keep(
        self, rows: RowSlices, *uses: tuple[Optional[int], Product]
    ) -> Callable[[torch.Tensor, torch.Tensor], None]:
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
