"""A forward pass with other values than the model's parameters have, for many tasks at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch.nn import functional

from allennlp_metaner.meta.factors import by_task
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.replacing import Halves, OfTasks, Replacing, Values
from allennlp_metaner.nn.linear import linear


@contextmanager
def with_values(
    parameters: NamedParameters, values: Values, sizes: Sequence[int], halves: Optional[Halves] = None
) -> Iterator[None]:
    """
    A context in which a model runs forward, without gradients, with other values than its parameters have.

    # Parameters

    parameters : `NamedParameters`
    values : `Values`
        Asked for once for every task and use of a parameter.
    sizes : `Sequence[int]`
        The number of sentences of each task of the pass.
    halves : `Halves`, optional (default = `None`)
        If given, `values` are to give the change of the parameters that are in it, also in lower precision,
        in which the sum of both would lose it.

    # Raises

    `NotSeparableError`, as [`record`](./recording.md#record) does.
    """
    with torch.no_grad(), _Valued(parameters, values, sizes, halves):
        yield


class _Valued(Replacing):
    def __init__(
        self,
        parameters: NamedParameters,
        values: Values,
        sizes: Sequence[int],
        halves: Optional[Halves],
    ) -> None:
        super().__init__(parameters, sizes)
        self._parameters = parameters
        self._halves = halves or {}
        self._values = values

    def _other(self, number: int) -> torch.Tensor:
        parameter = self._parameters[number][1]
        value = self._values(0, number)
        return parameter + value if id(parameter) in self._halves else value

    def _linear(
        self, inputs: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        half = self._halves.get(id(weight))
        if half is None:
            return self._by_task(linear, inputs, weight, bias)
        number = self._numbers.get(id(weight))
        if number is None and id(bias) not in self._numbers:
            return linear(inputs, half, bias)
        outputs = linear(inputs, half)
        for task, rows in enumerate(self._rows(inputs, number)):
            if number is not None:
                outputs[rows] += linear(inputs[rows], self._values(task, number))
            if bias is not None:
                outputs[rows] += self._value(task, bias)
        return outputs

    def _layer_norm(
        self,
        inputs: torch.Tensor,
        normalized_shape: Sequence[int],
        weight: Optional[torch.Tensor] = None,
        bias: Optional[torch.Tensor] = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        def layer_norm(inputs: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
            return functional.layer_norm(inputs, normalized_shape, weight, bias, eps)

        return self._by_task(layer_norm, inputs, weight, bias)

    def _embedding(
        self, inputs: torch.Tensor, weight: torch.Tensor, padding_idx: Optional[int] = None, **others: Any
    ) -> torch.Tensor:
        def embedding(inputs: torch.Tensor, weight: Any, bias: None) -> torch.Tensor:
            return functional.embedding(inputs, weight, padding_idx)

        if id(weight) in self._numbers:
            self._look_up_rows(inputs, self._numbers[id(weight)])
        return self._by_task(embedding, inputs, weight, None)

    def _by_task(
        self,
        function: Callable[..., torch.Tensor],
        inputs: torch.Tensor,
        weight: Optional[torch.Tensor],
        bias: Optional[torch.Tensor],
    ) -> torch.Tensor:
        if id(weight) not in self._numbers and id(bias) not in self._numbers:
            return function(inputs, weight, bias)
        rows = self._rows(inputs, self._numbers.get(id(weight)))
        return by_task(function, rows, inputs, self._of_all(weight), self._of_all(bias))

    def _of_tasks(self, number: int) -> Sequence[torch.Tensor]:
        return OfTasks(self._values, number, self._num_tasks)

    def _value(self, task: int, tensor: Any) -> Any:
        number = self._numbers.get(id(tensor))
        return tensor if number is None else self._values(task, number)
