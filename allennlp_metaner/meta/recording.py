"""
One forward and backward pass for many tasks: with other values than the model's parameters have, and with a
gradient for every task.

The gradient of a layer's weights is a product of two matrices, the layer's inputs and the gradient of its
outputs, with a row for each token. A `Recording` keeps the two instead of their product. So the sentences of
many tasks can share a pass, as long as all start from the same parameters. Every task's own gradient, or the
sum over tasks, is then computed from its rows when it is needed, a layer at a time.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Optional

import torch
from torch.nn import functional

from allennlp_metaner.meta.factors import Embedding, Keep, LayerNorm, Linear, by_row
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.replacing import Halves, OfTasks, Replacing, Values, slices
from allennlp_metaner.nn.linear import linear

Product = Callable[[Optional[torch.Tensor], torch.Tensor], torch.Tensor]


class _Use(NamedTuple):
    """
    One use of a parameter in a forward pass. The gradient is `product` of the two tensors with all but the
    last dimension flattened. They have a row a sentence, or a row a packed subword; `rows` are those of each
    task.
    """

    product: Product
    inputs: Optional[torch.Tensor]
    output_gradient: torch.Tensor
    rows: Sequence[slice]


def _matrix(inputs: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
    assert inputs is not None
    return linear(output_gradient.t(), inputs.t())


def _scale(inputs: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
    assert inputs is not None
    return (inputs * output_gradient).sum(0)


def _offset(inputs: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
    return output_gradient.sum(0)


@cache
def _table(num_rows: int, padding: Optional[int]) -> Product:
    """For an embedding of so many rows, of which one may have no gradient."""

    def product(inputs: Optional[torch.Tensor], output_gradient: torch.Tensor) -> torch.Tensor:
        assert inputs is not None
        return torch.ops.aten.embedding_dense_backward(
            output_gradient, inputs.flatten(), num_rows, -1 if padding is None else padding, False
        )

    return product


class Recording:
    """
    What the gradients of the parameters are made of.

    # Parameters

    parameters : `NamedParameters`
    """

    def __init__(self, parameters: NamedParameters) -> None:
        self._parameters = parameters
        self._uses: list[list[_Use]] = [[] for _ in parameters]
        self._others: dict[int, torch.Tensor] = {}

    def gradient(self, number: int, task: int) -> torch.Tensor:
        """
        The gradient of one parameter.

        # Parameters

        number : `int`
            The parameter's, in the list.
        task : `int`
            Whose loss is differentiated.
        """
        return _gradient([self], number, task)

    def gradients(self, numbers: Sequence[int], first: int, num_tasks: int) -> torch.Tensor:
        """
        The gradients of several parameters, each flattened, end to end, for several tasks.

        # Parameters

        numbers : `Sequence[int]`
            Of the parameters.
        first : `int`
            The first task's number in the pass.
        num_tasks : `int`

        # Returns

        `torch.Tensor`
            A row a task.
        """
        return torch.stack(
            [
                torch.cat([self.gradient(number, task).flatten() for number in numbers])
                for task in range(first, first + num_tasks)
            ]
        )

    def _keep(self, rows: Sequence[slice], *uses: tuple[Optional[int], Product]) -> Keep:
        """What notes the use of some parameters in one layer, during the backward pass."""

        def keep(inputs: torch.Tensor, output_gradient: torch.Tensor, dtype: torch.dtype) -> None:
            for number, product in uses:
                if number is None:
                    continue
                if product is _matrix:
                    use = _Use(product, inputs.to(dtype), output_gradient.to(dtype), rows)
                else:
                    use = _Use(product, None if product is _offset else inputs, output_gradient, rows)
                self._uses[number].append(use)

        return keep

    @staticmethod
    def total(recordings: "Sequence[Recording]", number: int) -> torch.Tensor:
        """The gradient of one parameter, summed over all tasks of all `recordings`."""
        return _gradient(recordings, number)


def _gradient(recordings: Sequence[Recording], number: int, task: Optional[int] = None) -> torch.Tensor:
    """Of one task, or the sum over all."""
    by_product: dict[Any, list[tuple[Optional[torch.Tensor], torch.Tensor]]] = {}
    for recording in recordings:
        for product, inputs, output_gradient, rows in recording._uses[number]:
            own = slice(None) if task is None else rows[task]
            by_product.setdefault(product, []).append(
                (None if inputs is None else _flat(inputs[own]), _flat(output_gradient[own]))
            )
    # One product of the rows of all tasks is also their sum.
    found = [
        product(None if pairs[0][0] is None else _cat([x for x, _ in pairs]), _cat([y for _, y in pairs]))
        for product, pairs in by_product.items()
    ]
    found += [recording._others[number] for recording in recordings if number in recording._others]
    if not found:
        return torch.zeros_like(recordings[0]._parameters[number][1])
    return sum(found[1:], start=found[0])


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1, tensor.size(-1))


def _cat(tensors: list[Any]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def record(
    losses: Callable[[], torch.Tensor],
    parameters: NamedParameters,
    sizes: Sequence[int],
    values: Optional[Values] = None,
    generator: Optional[torch.Generator] = None,
    halves: Optional[Halves] = None,
    valued: Optional[NamedParameters] = None,
) -> tuple[torch.Tensor, Recording]:
    """
    The losses of one or several tasks, and what their gradients are made of. No parameter changes, and no
    `grad`. Parameters of the model that are not in the list are constants.

    # Parameters

    losses : `Callable[[], torch.Tensor]`
        Runs the model, and returns one loss a task.
    parameters : `NamedParameters`
        Trainable parameters of the model, for which gradients are wanted.
    sizes : `Sequence[int]`
        The number of sentences of each task of the pass.
    values : `Values`, optional (default = `None`)
        The values that the parameters have in this pass for each task; `None` means their own for all.
    generator : `torch.Generator`, optional (default = `None`)
        Where dropout draws from; `None` means PyTorch's global one.
    halves : `Halves`, optional (default = `None`)
        Weights for the products of this pass in lower precision. Not together with `values`.
    valued : `NamedParameters`, optional (default = `None`)
        The parameters that `values` are of, by their numbers in this list; the others have their own values.
        `None` means all of `parameters`.

    # Returns

    `tuple[torch.Tensor, Recording]`

    # Raises

    `NotSeparableError`, if there are several tasks and the model uses a trainable parameter elsewhere than in
    linear layers, layer normalisation and embeddings, or not with one row a sentence or packed subword.
    """
    recording = Recording(parameters)
    mode = _Recorded(recording, parameters, values, sizes, generator, halves, valued)
    with torch.enable_grad(), mode:
        result = losses()
    leaves = list(mode.leaves.values())
    found = torch.autograd.grad(result, [mode.anchor, *leaves], torch.ones_like(result), allow_unused=True)
    for number, gradient in zip(mode.leaves, found[1:], strict=True):
        if gradient is not None:
            # Autograd may return one tensor for several parameters, and an optimiser may change it.
            recording._others[number] = gradient.clone(memory_format=torch.contiguous_format)
    return result.detach(), recording


class _Recorded(Replacing):
    def __init__(
        self,
        recording: Recording,
        parameters: NamedParameters,
        values: Optional[Values],
        sizes: Sequence[int],
        generator: Optional[torch.Generator],
        halves: Optional[Halves],
        valued: Optional[NamedParameters],
    ) -> None:
        super().__init__(parameters, sizes, generator)
        self._halves = halves or {}
        self._recording = recording
        self._own = [parameter.detach() for _, parameter in parameters]
        self._values = values
        positions = {id(parameter): number for number, (_, parameter) in enumerate(valued or parameters)}
        self._positions = [positions.get(id(parameter)) for _, parameter in parameters]
        # No parameter takes part in the backward pass; this is what it is for.
        self.anchor = torch.zeros((), requires_grad=True)
        self.leaves: dict[int, torch.Tensor] = {}

    def _other(self, number: int) -> torch.Tensor:
        if number not in self.leaves:
            # A copy: the buffer of a value is written again before the recording is used.
            self.leaves[number] = self._of_tasks(number)[0].detach().clone().requires_grad_()
        return self.leaves[number]

    def _linear(
        self, inputs: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        matrix, offset = self._numbers.get(id(weight)), self._numbers.get(id(bias))
        half = self._halves.get(id(weight))
        weight, bias = self._constant(weight), self._constant(bias)
        if (matrix is None and weight.requires_grad) or (offset is None and _needs_gradient(bias)):
            return functional.linear(inputs, self._replaced(weight), self._replaced(bias))
        if matrix is None and offset is None and not inputs.requires_grad:
            return linear(inputs, weight if half is None else half, bias)
        rows = self._rows(inputs, matrix)
        weights = self._of_all(weight) if half is None else [half]
        keep = self._recording._keep(rows, (matrix, _matrix), (offset, _offset))
        return Linear.apply(inputs, weights, self._of_all(bias), rows, self.anchor, keep)

    def _layer_norm(
        self,
        inputs: torch.Tensor,
        normalized_shape: Sequence[int],
        weight: Optional[torch.Tensor] = None,
        bias: Optional[torch.Tensor] = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        scale, offset = self._numbers.get(id(weight)), self._numbers.get(id(bias))
        if scale is None or offset is None or len(normalized_shape) != 1:
            return functional.layer_norm(
                inputs, normalized_shape, self._replaced(weight), self._replaced(bias), eps
            )
        sizes = self._row_sizes(inputs, scale)
        keep = self._recording._keep(slices(sizes), (scale, _scale), (offset, _offset))
        factors = by_row(self._of_tasks(scale), sizes, inputs)
        summands = by_row(self._of_tasks(offset), sizes, inputs)
        return LayerNorm.apply(inputs, factors, summands, self.anchor, eps, keep)

    def _embedding(
        self, inputs: torch.Tensor, weight: torch.Tensor, padding_idx: Optional[int] = None, **others: Any
    ) -> torch.Tensor:
        number = self._numbers.get(id(weight))
        if number is None:
            return functional.embedding(inputs, self._constant(weight), padding_idx)
        rows = self._look_up_rows(inputs, number)
        padding = None if padding_idx is None else padding_idx % len(weight)
        keep = self._recording._keep(rows, (number, _table(len(weight), padding)))
        return Embedding.apply(inputs, self._of_tasks(number), rows, self.anchor, keep)

    def _of_tasks(self, number: int) -> Sequence[torch.Tensor]:
        position = self._positions[number]
        if self._values is None or position is None:
            return [self._own[number]]
        return OfTasks(self._values, position, self._num_tasks)


def _needs_gradient(tensor: Optional[torch.Tensor]) -> bool:
    return tensor is not None and tensor.requires_grad
