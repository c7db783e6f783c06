"""
One forward and backward pass for many tasks: with other values than the model's parameters have, and with a
gradient for every task.

The gradient of a layer's weights is a product of two matrices, the layer's inputs and the gradient of its
outputs, with a row for each token. A `Recording` keeps the two instead of their product. So the sentences of
many tasks can share a pass, as long as all start from the same parameters. Every task's own gradient, or the
sum over tasks, is then computed from its rows when it is needed, a layer at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Optional

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.nn.dropout import attention, dropout
from allennlp_metaner.nn.linear import linear

Values = Callable[[int, int], torch.Tensor]
"""The value that a task (its number in the pass) has for a parameter (its number in the list)."""


Halves = dict[int, torch.Tensor]
"""Copies of the weights of linear layers in bfloat16, by the `id` of the parameter."""


class NotSeparableError(Exception):
    """The model uses a parameter in a way that does not tell the tasks of a pass apart."""


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
        table = output_gradient.new_zeros(num_rows, output_gradient.size(-1))
        table.index_add_(0, inputs.flatten(), output_gradient)
        if padding is not None:
            table[padding] = 0
        return table

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
        self._rows = _slices(sizes)
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

    def _keep(self, *uses: tuple[Optional[int], Product]) -> "Keep":
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


def _slices(sizes: Sequence[int]) -> list[slice]:
    if len(sizes) == 1:
        # Of one task, everything is its own, be it a row a sentence or not.
        return [slice(None)]
    return [slice(first, last) for first, last in pairwise(accumulate(sizes, initial=0))]


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


def halves_of(model: torch.nn.Module) -> Halves:
    """The [`Halves`](#halves) of all linear layers of `model`."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return {id(layer.weight): layer.weight.detach().bfloat16() for layer in layers}


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

    `NotSeparableError`, as [`record`](#record) does.
    """
    with torch.no_grad(), _Valued(parameters, values, sizes, halves):
        yield


class _Replacing(TorchFunctionMode):
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
        self._num_rows = sum(sizes)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _WITH_INPUT and "input" in kwargs:
            args = (kwargs.pop("input"), *args)
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
            return arg
        if self._num_tasks > 1:
            raise NotSeparableError(self._names[number])
        return self._other(number)

    def _check_rows(self, inputs: torch.Tensor, number: Optional[int]) -> None:
        if self._num_tasks > 1 and (inputs.dim() < 2 or inputs.size(0) != self._num_rows):
            raise NotSeparableError("" if number is None else self._names[number])

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


_WITH_INPUT = (functional.linear, functional.layer_norm, functional.embedding, functional.dropout)


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


class _Recorded(_Replacing):
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
        return _Linear.apply(inputs, factor, self._value(bias), self.anchor, keep)

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
        return _LayerNorm.apply(inputs, self._value(weight), self._value(bias), self.anchor, eps, keep)

    def _embedding(
        self, inputs: torch.Tensor, weight: torch.Tensor, padding_idx: Optional[int] = None, **others: Any
    ) -> torch.Tensor:
        number = self._numbers.get(id(weight))
        if number is None:
            return functional.embedding(inputs, weight, padding_idx)
        self._check_rows(inputs, number)
        padding = None if padding_idx is None else padding_idx % len(weight)
        keep = self._recording._keep((number, _table(len(weight), padding)))
        return _Embedding.apply(inputs, self._value(weight), self.anchor, keep)

    def _value(self, tensor: Any) -> Any:
        number = self._numbers.get(id(tensor))
        return tensor if number is None else self._values[number]


class _Valued(_Replacing):
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
        self._rows = _slices(sizes)

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
        self._check_rows(inputs, number)
        outputs = linear(inputs, half)
        for task, rows in enumerate(self._rows):
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
        if self._num_tasks == 1:
            return function(inputs, self._value(0, weight), self._value(0, bias))
        self._check_rows(inputs, self._numbers.get(id(weight)))
        return torch.cat(
            [
                function(inputs[rows], self._value(task, weight), self._value(task, bias))
                for task, rows in enumerate(self._rows)
            ]
        )

    def _value(self, task: int, tensor: Any) -> Any:
        number = self._numbers.get(id(tensor))
        return tensor if number is None else self._values(task, number)


def _needs_gradient(tensor: Optional[torch.Tensor]) -> bool:
    return tensor is not None and tensor.requires_grad


Keep = Callable[[torch.Tensor, torch.Tensor, torch.dtype], None]


class _Linear(torch.autograd.Function):
    """A linear layer whose backward pass keeps its factors instead of multiplying them."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: Optional[torch.Tensor],
        anchor: torch.Tensor,
        keep: Keep,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.keep = keep
        return linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        output_gradient = output_gradient.contiguous()
        ctx.keep(inputs.detach(), output_gradient, weight.dtype)
        input_gradient = linear(output_gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return input_gradient, None, None, None, None


class _LayerNorm(torch.autograd.Function):
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
        outputs, mean, inverse_deviation = torch.native_layer_norm(
            inputs, [inputs.size(-1)], weight, bias, eps
        )
        ctx.save_for_backward(inputs, weight, bias, mean, inverse_deviation)
        ctx.keep = keep
        return outputs

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        inputs, weight, bias, mean, inverse_deviation = ctx.saved_tensors
        output_gradient = output_gradient.contiguous()
        ctx.keep((inputs - mean) * inverse_deviation, output_gradient, weight.dtype)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = torch.ops.aten.native_layer_norm_backward(
                output_gradient,
                inputs,
                [inputs.size(-1)],
                mean,
                inverse_deviation,
                weight,
                bias,
                [True, False, False],
            )[0]
        return input_gradient, None, None, None, None, None


class _Embedding(torch.autograd.Function):
    """A look-up whose backward pass keeps which rows had which gradient, and makes no table of them."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, anchor: torch.Tensor, keep: Keep
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.keep = keep
        return functional.embedding(inputs, weight)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        ctx.keep(inputs.unsqueeze(-1), output_gradient.contiguous(), output_gradient.dtype)
        return None, None, None, None
