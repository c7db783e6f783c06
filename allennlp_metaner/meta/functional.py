"""Running a model with other weights than its own, with or without the gradients of each task."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional, Protocol

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from allennlp_metaner.nn import per_task_gradients as products
from allennlp_metaner.nn import task_layers as layers
from allennlp_metaner.nn.dropout import attention, dropout
from allennlp_metaner.nn.linear import input_first, linear
from allennlp_metaner.nn.parameters import NamedParameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients
from allennlp_metaner.nn.randomness import TaskGenerators
from allennlp_metaner.nn.task_layers import Values, by_row, by_task
from allennlp_metaner.nn.task_rows import NotSeparableError, TaskRows


class TaskWeights(Protocol):
    """The weights of each task of a pass."""

    def of_task(self, task: int, index: int) -> torch.Tensor:
        """What the task at a position in the pass has for the parameter at a position in the list."""
        ...

    def stacked(self, index: int) -> Optional[torch.Tensor]:
        """The same of all tasks, shape `(num_tasks, ...)`. `None`, if they are to be asked for one by one."""
        ...


_DESCRIPTIONS = {
    *(getattr(torch.Tensor, name).__get__ for name in ("device", "dtype", "ndim", "requires_grad", "shape")),
    *(getattr(torch.Tensor, name) for name in ("dim", "is_floating_point", "numel", "size")),
}
"""What a model may ask of a parameter that is the same for the weights of all tasks."""


@contextmanager
def functional_call(
    parameters: NamedParameters,
    weights: Optional[TaskWeights],
    rows: TaskRows,
    generators: Optional[TaskGenerators] = None,
) -> Iterator[None]:
    """
    A context in which a model runs forward, without gradients, with other weights than its parameters.

    # Parameters

    parameters : `NamedParameters`
    weights : `TaskWeights`, optional
        Asked for once for every task and use of a parameter. `None` is for an empty list of parameters.
    rows : `TaskRows`
    generators : `TaskGenerators`, optional (default = `None`)
        Where dropout draws from; `None` means PyTorch's global generator.

    # Raises

    `NotSeparableError`, as [`per_task_gradients`](#per_task_gradients) does.
    """
    with torch.no_grad(), FunctionalMode(parameters, rows, weights, generators):
        yield


@contextmanager
def per_task_gradients(
    parameters: NamedParameters,
    rows: TaskRows,
    weights: Optional[TaskWeights] = None,
    generators: Optional[TaskGenerators] = None,
    weights_of: Optional[NamedParameters] = None,
) -> Iterator["FunctionalMode"]:
    """
    A context in which a model runs forward, so that [`backward`](#functionalmode) then gives the gradients of
    every task. No parameter changes, and no `grad`. Parameters of the model that are not in the list are
    constants.

    # Parameters

    parameters : `NamedParameters`
        Trainable parameters of the model, for which gradients are wanted.
    rows : `TaskRows`
    weights : `TaskWeights`, optional (default = `None`)
        The weights that each task has in this pass; `None` means the parameters themselves for all.
    generators : `TaskGenerators`, optional (default = `None`)
        Where dropout draws from; `None` means PyTorch's global generator.
    weights_of : `NamedParameters`, optional (default = `None`)
        The parameters that `weights` are of, by their positions in this list. The others are themselves.
        `None` means all of `parameters`.

    # Raises

    `NotSeparableError`, if there are several tasks and the model uses a trainable parameter elsewhere than in
    linear layers, layer normalisation and embeddings, or not with one row a sentence or packed subword.
    """
    gradients = PerTaskGradients(parameters)
    mode = FunctionalMode(parameters, rows, weights, generators, gradients, weights_of)
    with torch.enable_grad(), mode:
        yield mode


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


class _OfTasks(Sequence[torch.Tensor]):
    """The weights of the tasks for one parameter. They are asked for one by one, when they are needed."""

    def __init__(self, weights: TaskWeights, index: int, num_tasks: int) -> None:
        self._weights, self._index, self._num_tasks = weights, index, num_tasks

    def __len__(self) -> int:
        return self._num_tasks

    def __getitem__(self, task: Any) -> Any:
        if not 0 <= task < self._num_tasks:
            raise IndexError(task)
        return self._weights.of_task(task, self._index)


class FunctionalMode(TorchFunctionMode):
    """
    The mode that [`functional_call`](#functional_call) and [`per_task_gradients`](#per_task_gradients) enter.
    For their parameters see there; `gradients` is `None` in a pass without.
    """

    def __init__(
        self,
        parameters: NamedParameters,
        rows: TaskRows,
        weights: Optional[TaskWeights] = None,
        generators: Optional[TaskGenerators] = None,
        gradients: Optional[PerTaskGradients] = None,
        weights_of: Optional[NamedParameters] = None,
    ) -> None:
        super().__init__()
        self._parameters = parameters
        self._indices = {id(parameter): index for index, (_, parameter) in enumerate(parameters)}
        positions = {id(parameter): index for index, (_, parameter) in enumerate(weights_of or parameters)}
        self._positions = [positions.get(id(parameter)) for _, parameter in parameters]
        self._rows = rows
        self._weights = weights
        self._generators = generators
        self._gradients = gradients
        # No parameter takes part in the backward pass; this is what it is for.
        self._anchor = torch.zeros((), requires_grad=True)
        self._leaves: dict[int, torch.Tensor] = {}

    def backward(self, losses: torch.Tensor) -> PerTaskGradients:
        """
        # Parameters

        losses : `torch.Tensor`
            What the model computed in this mode: one loss a task, shape `(num_tasks,)`.
        """
        assert self._gradients is not None
        leaves = [self._anchor, *self._leaves.values()]
        found = torch.autograd.grad(losses, leaves, torch.ones_like(losses), allow_unused=True)
        for index, gradient in zip(self._leaves, found[1:], strict=True):
            if gradient is not None:
                # Autograd may return one tensor for several parameters, and an optimiser may change it.
                copy = gradient.clone(memory_format=torch.contiguous_format)
                self._gradients.keep_gradient(index, copy)
        return self._gradients

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
            return dropout(*args, **{**kwargs, "generator": self._generators})
        if func is functional.scaled_dot_product_attention:
            return attention(*args, **{**kwargs, "generator": self._generators})
        return func(*args, **kwargs)

    def _replaced(self, arg: Any) -> Any:
        if isinstance(arg, (list, tuple)) and any(id(part) in self._indices for part in arg):
            return type(arg)(map(self._replaced, arg))
        index = self._indices.get(id(arg))
        if index is None:
            return self._constant(arg)
        if self._rows.num_tasks > 1:
            raise NotSeparableError(self._name(index))
        if self._gradients is None:
            return self._of_tasks(index)[0]
        if index not in self._leaves:
            # A copy: the memory of a weight is written again before the gradients are used.
            self._leaves[index] = self._of_tasks(index)[0].detach().clone().requires_grad_()
        return self._leaves[index]

    def _constant(self, tensor: Any) -> Any:
        """A parameter that nothing stands for takes no part in the backward pass."""
        if isinstance(tensor, torch.nn.Parameter) and id(tensor) not in self._indices:
            return tensor.detach()
        return tensor

    def _name(self, index: Optional[int]) -> str:
        return "" if index is None else self._parameters[index][0]

    def _of_tasks(self, index: int) -> Values:
        """The weights of each task for a parameter, or a single one for all."""
        position = self._positions[index]
        if self._weights is None or position is None:
            return [self._parameters[index][1].detach()]
        stacked = self._weights.stacked(position)
        return _OfTasks(self._weights, position, self._rows.num_tasks) if stacked is None else stacked

    def _of_all(self, tensor: Any) -> Values:
        """The same of a tensor that may be a parameter."""
        index = self._indices.get(id(tensor))
        return [self._constant(tensor)] if index is None else self._of_tasks(index)

    def _linear(
        self, inputs: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        matrix, offset = self._indices.get(id(weight)), self._indices.get(id(bias))
        known = matrix is not None or offset is not None
        if self._gradients is None:
            if not known:
                return linear(inputs, weight, bias)
            rows = self._rows.slices(inputs, self._name(matrix))
            return by_task(linear, rows, inputs, self._of_all(weight), self._of_all(bias))
        weight, bias = self._constant(weight), self._constant(bias)
        if (matrix is None and weight.requires_grad) or (offset is None and _needs_gradient(bias)):
            return functional.linear(inputs, self._replaced(weight), self._replaced(bias))
        if not known and not inputs.requires_grad:
            return linear(inputs, weight, bias)
        rows = self._rows.slices(inputs, self._name(matrix))
        keep = self._gradients.keep(rows, (matrix, products.matrix_product), (offset, products.bias_product))
        return layers.LinearFunction.apply(
            inputs, self._of_all(weight), self._of_all(bias), rows, self._anchor, keep
        )

    def _layer_norm(
        self,
        inputs: torch.Tensor,
        normalized_shape: Sequence[int],
        weight: Optional[torch.Tensor] = None,
        bias: Optional[torch.Tensor] = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        scale, offset = self._indices.get(id(weight)), self._indices.get(id(bias))
        known = scale is not None or offset is not None
        whole = weight is not None and bias is not None
        if not known or len(normalized_shape) != 1 or not (whole or self._gradients is None):
            weight, bias = self._replaced(weight), self._replaced(bias)
            return functional.layer_norm(inputs, normalized_shape, weight, bias, eps)
        rows = self._rows.slices(inputs, self._name(offset if scale is None else scale))
        factors, summands = (by_row(self._of_all(each), rows, inputs) for each in (weight, bias))
        if self._gradients is None:
            return layers.layer_norm(inputs, factors, summands, eps)
        keep = self._gradients.keep(rows, (scale, products.scale_product), (offset, products.bias_product))
        return layers.LayerNormFunction.apply(inputs, factors, summands, self._anchor, eps, keep)

    def _embedding(
        self, inputs: torch.Tensor, weight: torch.Tensor, padding_idx: Optional[int] = None, **others: Any
    ) -> torch.Tensor:
        index = self._indices.get(id(weight))
        if index is None:
            return functional.embedding(inputs, self._constant(weight), padding_idx)
        rows = self._rows.slices(inputs, self._name(index))
        # Relative positions have a row and a column for each subword, not for each sentence.
        if self._rows.num_tasks > 1 and inputs.size(1) == inputs.size(0):
            raise NotSeparableError(self._name(index))
        if self._gradients is None:
            return by_task(functional.embedding, rows, inputs, self._of_tasks(index), [padding_idx])
        padding = None if padding_idx is None else padding_idx % len(weight)
        keep = self._gradients.keep(rows, (index, products.TableProduct(len(weight), padding)))
        return layers.EmbeddingFunction.apply(inputs, self._of_tasks(index), rows, self._anchor, keep)


def _needs_gradient(tensor: Optional[torch.Tensor]) -> bool:
    return tensor is not None and tensor.requires_grad
