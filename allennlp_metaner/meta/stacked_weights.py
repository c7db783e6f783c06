"""The fast weights of a group of tasks stacked, and the steps that a worker takes in one way or the other."""

from collections.abc import Sequence
from functools import partial
from typing import Optional, Union

import torch

from allennlp_metaner.meta.fast_weights import FastWeights
from allennlp_metaner.meta.inner_optimizers import InnerAdam, InnerOptimizer, InnerSgd
from allennlp_metaner.nn.memory import Buffers, bytes_of, bytes_of_a_subword
from allennlp_metaner.nn.parameters import NamedParameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients

STEP_BYTES = 2**28
"""
A step is taken on so much of the weights of all tasks at once: all of a small model's, and a layer's of a
large one, for which it takes far longer than to start an operation. It needs a few times as much memory.
"""


ACTIVATIONS = 1.7
"""
What autograd keeps of a pass, for each byte of the inputs and output gradients of linear layers. Counted with
dropout on, for BERT's proportions.
"""

STEP_COPIES = 2
"""A step of stacked weights needs so many times the memory of the weights that it is taken on at once."""


def copies_of(optimizer: InnerOptimizer, num_steps: int) -> int:
    """How many copies of its weights a task needs: they themselves, and the state between two steps."""
    if num_steps == 1 or isinstance(optimizer, InnerSgd):
        return 1
    return 1 + (num_steps - 1 if isinstance(optimizer, InnerAdam) and num_steps < 3 else 2)


def predicted_memory(
    model: torch.nn.Module,
    parameters: NamedParameters,
    copies: int,
    num_steps: int,
    supports: Sequence[int],
    queries: Sequence[int],
) -> int:
    """
    The most memory that the meta-gradient of a group of tasks takes in the execution "batched", on top of
    model and data.

    # Parameters

    model : `torch.nn.Module`
    parameters : `NamedParameters`
        Those that adapt.
    copies : `int`
        Of the weights of a task, see [`copies_of`](./stacked_weights.md#copies_of).
    num_steps : `int`
    supports, queries : `Sequence[int]`
        The number of subwords of each task.

    # Returns

    `int`
        In bytes.
    """
    stacked, of_subword = len(supports) * bytes_of(parameters), bytes_of_a_subword(model)
    largest = len(supports) * max(parameter.numel() * parameter.element_size() for _, parameter in parameters)
    step = min(stacked, max(largest, STEP_BYTES))
    # What the first pass keeps is there until the group is done; the latest step's goes when it is taken.
    passes = 1 if num_steps == 1 else 2
    activations = int(ACTIVATIONS * of_subword)
    stepping = copies * stacked + STEP_COPIES * step + step // len(supports)
    stepping += passes * sum(supports) * activations
    asking = stacked + (sum(supports) + sum(queries)) * activations + 2 * bytes_of(parameters)
    return max(stepping, asking)


class StackedWeights:
    """
    The weights of all tasks of a group after one step, which is taken for all tasks and, as far as memory
    allows, for all parameters in one operation.

    # Parameters

    optimizer : `InnerOptimizer`
        One that [`stacks`](./inner_optimizers.md#inneroptimizer).
    parameters : `NamedParameters`
        The meta parameters.
    gradients : `PerTaskGradients`
        Of a pass of these tasks, and possibly others.
    first : `int`
        The position of the first task in that pass.
    num_tasks : `int`
    start : `StackedWeights`, optional (default = `None`)
        The weights before the step, whose memory is used; `None` means the meta parameters.
    last : `bool`, optional (default = `True`)
        Whether no other step follows.
    keep : `bool`, optional (default = `True`)
        Whether all weights are computed at once, and stay. If not, for a last step only, they are computed
        when they are asked for, and only the latest are in memory.
    """

    def __init__(
        self,
        optimizer: InnerOptimizer,
        parameters: NamedParameters,
        gradients: PerTaskGradients,
        first: int,
        num_tasks: int,
        start: "Optional[StackedWeights]" = None,
        last: bool = True,
        keep: bool = True,
    ) -> None:
        self._optimizer = optimizer
        self._parameters = [parameter.detach() for _, parameter in parameters]
        self._num_tasks = num_tasks
        self._bucket = {i: bucket for bucket, indices in enumerate(optimizer.buckets) for i in indices}
        self._values: dict[int, torch.Tensor] = {}
        self._parts: dict[int, torch.Tensor] = {}
        self._keep = keep
        step = partial(self._step, gradients, first, start, last)
        if keep:
            for bucket in range(len(optimizer.buckets)):
                step(bucket)
        else:
            self._step_later = step

    def stacked(self, index: int) -> torch.Tensor:
        """The weights of all tasks for the parameter at a position in the list."""
        if index not in self._parts:
            self._step_later(self._bucket[index])
        return self._parts[index]

    def of_task(self, task: int, index: int) -> torch.Tensor:
        """See [`TaskWeights`](./functional.md#taskweights)."""
        return self.stacked(index)[task]

    def _step(
        self,
        gradients: PerTaskGradients,
        first: int,
        start: "Optional[StackedWeights]",
        last: bool,
        bucket: int,
    ) -> None:
        indices = self._optimizer.buckets[bucket]
        out: Optional[torch.Tensor] = None
        if start is not None:
            value = out = start._values[bucket]
        else:
            parameters = [self._parameters[index].flatten() for index in indices]
            value = parameters[0] if len(parameters) == 1 else torch.cat(parameters)
            value = value.expand(self._num_tasks, -1)
            out = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        gradient = partial(gradients.stacked, indices, first, self._num_tasks)
        self._optimizer(bucket, value, gradient, out, last)
        if not self._keep:
            self._forget(bucket)
        self._values[bucket] = out
        parts = out.split([self._parameters[index].numel() for index in indices], dim=1)
        for index, part in zip(indices, parts, strict=True):
            self._parts[index] = part.unflatten(1, self._parameters[index].shape or (1,))
            if not self._parameters[index].dim():
                self._parts[index] = self._parts[index].squeeze(1)

    def _forget(self, bucket: int) -> None:
        """What is in memory besides: the model goes on to its next layer, with other weights of each kind."""
        for other in [each for each in self._values if self._optimizer.same_options(each, bucket)]:
            del self._values[other]
            for index in self._optimizer.buckets[other]:
                del self._parts[index]


Weights = Union[FastWeights, StackedWeights]


class WorkerState:
    """
    What a worker needs for itself: an optimiser, and `buffers` for the fast weights of a group of tasks.

    # Parameters

    optimizer : `InnerOptimizer`
    parameters : `NamedParameters`
        The meta parameters.

    Its attribute `batched` says whether the weights of a group are stacked.
    """

    def __init__(self, optimizer: InnerOptimizer, parameters: NamedParameters) -> None:
        self.optimizer = optimizer
        self._parameters = parameters
        self.batched = False
        self.buffers = Buffers(parameters)

    def step(
        self,
        gradients: PerTaskGradients,
        first: int,
        num_tasks: int,
        start: Optional[Weights],
        last: bool,
    ) -> Weights:
        """
        The weights after a step from `start`, written over its memory. Without a start, other tasks begin.
        For the parameters see [`FastWeights`](./fast_weights.md#fastweights).
        """
        if start is None:
            self._begin(num_tasks)
        if self.batched:
            assert not isinstance(start, FastWeights)
            return StackedWeights(self.optimizer, self._parameters, gradients, first, num_tasks, start, last)
        assert not isinstance(start, StackedWeights)
        return FastWeights(
            self.optimizer, self._parameters, gradients, first, num_tasks, start, last, self.buffers
        )

    def single_step(self, gradients: PerTaskGradients, num_tasks: int) -> Weights:
        """The weights of all tasks of a pass after their only step, computed when they are needed."""
        self._begin(num_tasks)
        if self.batched:
            return StackedWeights(self.optimizer, self._parameters, gradients, 0, num_tasks, keep=False)
        return FastWeights(self.optimizer, self._parameters, gradients, 0, num_tasks)

    def _begin(self, num_tasks: int) -> None:
        self.optimizer.reset()
        if self.batched:
            element_size = max(parameter.element_size() for _, parameter in self._parameters)
            self.optimizer.join(STEP_BYTES // (num_tasks * element_size))
