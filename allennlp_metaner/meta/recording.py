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

from allennlp_metaner.meta.factors import Embedding, Keep, LayerNorm, Linear
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.replacing import Halves, Replacing, slices
from allennlp_metaner.nn.linear import linear

Product = Callable[[Optional[torch.Tensor], torch.Tensor], torch.Tensor]


class _Use(NamedTuple):
    """
    One use of a parameter in a forward pass. Shapes: `(num_sentences, ..., size)`; the gradient is `product`
    of the two with all but the last dimension flattened.
    """

    product: Product
    inputs: Optional[torch.Tensor]
    output_gradient: torch.Tensor


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
    sizes : `Sequence[int]`
        The number of sentences of each task of the pass.
    """

    def __init__(self, parameters: NamedParameters, sizes: Sequence[int]) -> None:
        self._parameters = parameters
        self._rows = slices(sizes)
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
        return _gradient([(self, self._rows[task])], number)

    def _keep(self, *uses: tuple[Optional[int], Product]) -> Keep:
        """What notes the use of some parameters in one layer, during the backward pass."""

        def keep(inputs: torch.Tensor, output_gradient: torch.Tensor, dtype: torch.dtype) -> None:
            for number, product in uses:
                if number is None:
                    continue
                if product is _matrix:
                    use = _Use(product, inputs.to(dtype), output_gradient.to(dtype))
                else:
                    use = _Use(product, None if product is _offset else inputs, output_gradient)
                self._uses[number].append(use)

        return keep

    @staticmethod
    def total(recordings: "Sequence[Recording]", number: int) -> torch.Tensor:
        """The gradient of one parameter, summed over all tasks of all `recordings`."""
        return _gradient([(recording, slice(None)) for recording in recordings], number)


def _gradient(parts: Sequence[tuple[Recording, slice]], number: int) -> torch.Tensor:
    by_product: dict[Any, list[tuple[Optional[torch.Tensor], torch.Tensor]]] = {}
    for recording, rows in parts:
        for product, inputs, output_gradient in recording._uses[number]:
            by_product.setdefault(product, []).append(
                (None if inputs is None else _flat(inputs[rows]), _flat(output_gradient[rows]))
            )
    # One product of the rows of all tasks is also their sum.
    found = [
        product(None if pairs[0][0] is None else _cat([x for x, _ in pairs]), _cat([y for _, y in pairs]))
        for product, pairs in by_product.items()
    ]
    found += [recording._others[number] for recording, _ in parts if number in recording._others]
    if not found:
        return torch.zeros_like(parts[0][0]._parameters[number][1])
    return sum(found[1:], start=found[0])


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1, tensor.size(-1))


def _cat(tensors: list[Any]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def record(
    losses: Callable[[], torch.Tensor],
    parameters: NamedParameters,
    sizes: Sequence[int],
    values: Optional[Sequence[torch.Tensor]] = None,
    generator: Optional[torch.Generator] = None,
    halves: Optional[Halves] = None,
) -> tuple[torch.Tensor, Recording]:
    """
    The losses of one or several tasks, and what their gradients are made of. No parameter changes, and no
    `grad`.

    # Parameters

    losses : `Callable[[], torch.Tensor]`
        Runs the model, and returns one loss a task.
    parameters : `NamedParameters`
        The trainable parameters of the model.
    sizes : `Sequence[int]`
        The number of sentences of each task of the pass.
    values : `Sequence[torch.Tensor]`, optional (default = `None`)
        The values that all parameters have in this pass; `None` means their own.
    generator : `torch.Generator`, optional (default = `None`)
        Where dropout draws from; `None` means PyTorch's global one.
    halves : `Halves`, optional (default = `None`)
        Weights for the products of this pass in lower precision. Not together with `values`.

    # Returns

    `tuple[torch.Tensor, Recording]`

    # Raises

    `NotSeparableError`, if there are several tasks and the model uses a trainable parameter elsewhere than in
    linear layers, layer normalisation and embeddings, or not with one row a sentence.
    """
    recording = Recording(parameters, sizes)
    with torch.enable_grad(), _Recorded(recording, parameters, values, sizes, generator, halves) as mode:
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
        values: Optional[Sequence[torch.Tensor]],
        sizes: Sequence[int],
        generator: Optional[torch.Generator],
        halves: Optional[Halves],
    ) -> None:
        super().__init__(parameters, sizes, generator)
        self._halves = halves or {}
        self._recording = recording
        self._values = [p.detach() for _, p in parameters] if values is None else list(values)
        # No parameter takes part in the backward pass; this is what it is for.
        self.anchor = torch.zeros((), requires_grad=True)
        self.leaves: dict[int, torch.Tensor] = {}

    def _other(self, number: int) -> torch.Tensor:
        if number not in self.leaves:
            # A copy: the buffer of a value is written again before the recording is used.
            self.leaves[number] = self._values[number].detach().clone().requires_grad_()
        return self.leaves[number]

    def _linear(
        self, inputs: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        matrix, offset = self._numbers.get(id(weight)), self._numbers.get(id(bias))
        if (matrix is None and weight.requires_grad) or (offset is None and _needs_gradient(bias)):
            return functional.linear(inputs, self._replaced(weight), self._replaced(bias))
        factor = self._halves.get(id(weight), self._value(weight))
        if matrix is None and offset is None and not inputs.requires_grad:
            return linear(inputs, factor, bias)
        self._check_rows(inputs, matrix)
        keep = self._recording._keep((matrix, _matrix), (offset, _offset))
        return Linear.apply(inputs, factor, self._value(bias), self.anchor, keep)

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
        self._check_rows(inputs, scale)
        keep = self._recording._keep((scale, _scale), (offset, _offset))
        return LayerNorm.apply(inputs, self._value(weight), self._value(bias), self.anchor, eps, keep)

    def _embedding(
        self, inputs: torch.Tensor, weight: torch.Tensor, padding_idx: Optional[int] = None, **others: Any
    ) -> torch.Tensor:
        number = self._numbers.get(id(weight))
        if number is None:
            return functional.embedding(inputs, weight, padding_idx)
        self._check_look_up(inputs, number)
        padding = None if padding_idx is None else padding_idx % len(weight)
        keep = self._recording._keep((number, _table(len(weight), padding)))
        return Embedding.apply(inputs, self._value(weight), self.anchor, keep)

    def _value(self, tensor: Any) -> Any:
        number = self._numbers.get(id(tensor))
        return tensor if number is None else self._values[number]


def _needs_gradient(tensor: Optional[torch.Tensor]) -> bool:
    return tensor is not None and tensor.requires_grad
