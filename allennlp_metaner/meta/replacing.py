"""A context in which something else stands for a model's parameters."""

from collections.abc import Callable, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any, Optional

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.nn.dropout import attention, dropout
from allennlp_metaner.nn.linear import input_first
from allennlp_metaner.nn.packing import Packing, current_packing

Values = Callable[[int, int], torch.Tensor]
"""The value that a task (its number in the pass) has for a parameter (its number in the list)."""


Halves = dict[int, torch.Tensor]
"""Copies of the weights of linear layers in bfloat16, by the `id` of the parameter."""


_DESCRIPTIONS = {
    *(getattr(torch.Tensor, name).__get__ for name in ("device", "dtype", "ndim", "requires_grad", "shape")),
    *(getattr(torch.Tensor, name) for name in ("dim", "is_floating_point", "numel", "size")),
}
"""What a model may ask of a parameter that is the same for all of its values."""


class NotSeparableError(Exception):
    """The model uses a parameter in a way that does not tell the tasks of a pass apart."""


def halves_of(model: torch.nn.Module) -> Halves:
    """The [`Halves`](#halves) of all linear layers of `model`."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return {id(layer.weight): layer.weight.detach().bfloat16() for layer in layers}


def slices(sizes: Sequence[int]) -> list[slice]:
    if len(sizes) == 1:
        # Of one task, everything is its own, be it a row a sentence or not.
        return [slice(None)]
    return [slice(first, last) for first, last in pairwise(accumulate(sizes, initial=0))]


def _has_options(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: Optional[int] = None,
    max_norm: Optional[float] = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> bool:
    """Whether an embedding does more than to look up rows."""
    return max_norm is not None or scale_grad_by_freq or sparse


class OfTasks(Sequence[torch.Tensor]):
    """The values of one parameter. They are asked for one by one, when they are needed."""

    def __init__(self, values: Values, number: int, num_tasks: int) -> None:
        self._values, self._number, self._num_tasks = values, number, num_tasks

    def __len__(self) -> int:
        return self._num_tasks

    def __getitem__(self, task: Any) -> Any:
        if not 0 <= task < self._num_tasks:
            raise IndexError(task)
        return self._values(task, self._number)


class Replacing(TorchFunctionMode):
    """A context in which something else stands for each of the parameters."""

    def __init__(
        self,
        parameters: NamedParameters,
        sizes: Sequence[int],
        generator: Optional[torch.Generator] = None,
    ) -> None:
        super().__init__()
        self._generator = generator
        self._numbers = {id(parameter): number for number, (_, parameter) in enumerate(parameters)}
        self._names = [name for name, _ in parameters]
        self._num_tasks = len(sizes)
        self._sizes = list(sizes)
        self._packing: Optional[Packing] = None
        self._packed_sizes: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DESCRIPTIONS:
            return func(*args, **(kwargs or {}))
        args, kwargs = input_first(func, args, kwargs)
        if func is functional.linear:
            return self._linear(self._replaced(args[0]), *args[1:], **kwargs)
        if func is functional.embedding and not _has_options(*args, **kwargs):
            return self._embedding(*args, **kwargs)
        if func is functional.layer_norm:
            return self._layer_norm(self._replaced(args[0]), *args[1:], **kwargs)
        args = tuple(map(self._replaced, args))
        kwargs = {key: self._replaced(arg) for key, arg in kwargs.items()}
        if func is functional.dropout:
            return dropout(*args, **{**kwargs, "generator": self._generator})
        if func is functional.scaled_dot_product_attention:
            return attention(*args, **{**kwargs, "generator": self._generator})
        return func(*args, **kwargs)

    def _replaced(self, arg: Any) -> Any:
        if isinstance(arg, (list, tuple)) and any(id(part) in self._numbers for part in arg):
            return type(arg)(map(self._replaced, arg))
        number = self._numbers.get(id(arg))
        if number is None:
            return self._constant(arg)
        if self._num_tasks > 1:
            raise NotSeparableError(self._names[number])
        return self._other(number)

    def _constant(self, tensor: Any) -> Any:
        """A parameter that nothing stands for takes no part in the backward pass."""
        if isinstance(tensor, torch.nn.Parameter) and id(tensor) not in self._numbers:
            return tensor.detach()
        return tensor

    def _row_sizes(self, inputs: torch.Tensor, number: Optional[int]) -> list[int]:
        """How many rows of a layer's inputs belong to each task: one a sentence, or one a packed subword."""
        packing, sizes = current_packing(), self._sizes
        if packing is not None:
            if packing is not self._packing:
                of_sentences = iter(packing.lengths)
                self._packed_sizes = [sum(islice(of_sentences, size)) for size in self._sizes]
                self._packing = packing
            sizes = self._packed_sizes
        if self._num_tasks > 1 and (inputs.dim() < 2 or inputs.size(0) != sum(sizes)):
            raise NotSeparableError("" if number is None else self._names[number])
        return sizes

    def _rows(self, inputs: torch.Tensor, number: Optional[int]) -> list[slice]:
        return slices(self._row_sizes(inputs, number))

    def _look_up_rows(self, inputs: torch.Tensor, number: Optional[int]) -> list[slice]:
        rows = self._rows(inputs, number)
        # Relative positions have a row and a column for each subword, not for each sentence.
        if self._num_tasks > 1 and inputs.size(1) == inputs.size(0):
            raise NotSeparableError("" if number is None else self._names[number])
        return rows

    def _of_all(self, tensor: Any) -> Sequence[Any]:
        """A tensor that may be a parameter: its value for each task, or a single one for all."""
        number = self._numbers.get(id(tensor))
        return [tensor] if number is None else self._of_tasks(number)

    def _of_tasks(self, number: int) -> Sequence[torch.Tensor]:
        """What a parameter has in this pass: a value for each task, or a single one for all."""
        raise NotImplementedError

    def _linear(
        self, inputs: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        raise NotImplementedError

    def _layer_norm(
        self,
        inputs: torch.Tensor,
        normalized_shape: Sequence[int],
        weight: Optional[torch.Tensor] = None,
        bias: Optional[torch.Tensor] = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        raise NotImplementedError

    def _embedding(
        self, inputs: torch.Tensor, weight: torch.Tensor, padding_idx: Optional[int] = None, **others: Any
    ) -> torch.Tensor:
        raise NotImplementedError

    def _other(self, number: int) -> torch.Tensor:
        """What stands for a parameter that is used in any other way, in a pass of one task."""
        raise NotImplementedError
