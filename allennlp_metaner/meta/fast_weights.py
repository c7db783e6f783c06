"""The fast weights of a group of tasks, made of the meta parameters by an inner loop, and passes at them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Optional, Protocol

import torch

from allennlp_metaner.meta.functional import TaskWeights, per_task_gradients
from allennlp_metaner.meta.inner_optimizers import InnerOptimizer
from allennlp_metaner.nn.collate import Batch, Joined
from allennlp_metaner.nn.memory import Buffers
from allennlp_metaner.nn.parameters import NamedParameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients
from allennlp_metaner.nn.randomness import TaskGenerators
from allennlp_metaner.nn.task_rows import NotSeparableError, TaskRows


class Learner(Protocol):
    """
    What the inner loop asks of a model, which is a `torch.nn.Module`: losses that leave its metrics alone.
    Batches come [`Joined`](../nn/collate.md#joined), for models that look at all of them at once.
    """

    def losses(self, batches: Sequence[Batch], max_loss_weight: float | None = None) -> torch.Tensor:
        """The training loss of each batch; `max_loss_weight` overrides the model's own lambda (Eq. 13)."""
        ...

    def prepared(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The batches, with whatever can be computed of them without the trainable parameters."""
        ...

    def num_packed_rows(self, batches: Sequence[Batch]) -> Sequence[Sequence[int]]:
        """
        The number of rows of each batch in layers that run on packed sentences, when all batches share a
        pass: one list for each embedder that packs them. Other layers run on a row a sentence.
        """
        ...


def rows_of(model: Learner, batches: Sequence[Batch]) -> TaskRows:
    """The rows of some batches, one a task, in a pass of all of them through `model`."""
    joined = Joined.of(batches)
    return TaskRows(joined.sizes, model.num_packed_rows(joined), joined.longest)


def losses_and_gradients(
    model: Learner,
    batches: Sequence[Batch],
    parameters: NamedParameters,
    seeds: Sequence[int],
    weights: Optional[TaskWeights] = None,
    weights_of: Optional[NamedParameters] = None,
    max_loss_weight: float | None = None,
) -> tuple[torch.Tensor, PerTaskGradients]:
    """
    The losses and gradients of some batches, from one pass.

    # Parameters

    model : `Learner`
    batches : `Sequence[Batch]`
        One a task.
    parameters : `NamedParameters`
        For which gradients are wanted.
    seeds : `Sequence[int]`
        For the dropout of each task.
    weights, weights_of : optional (default = `None`)
        See [`per_task_gradients`](./functional.md#per_task_gradients).
    max_loss_weight : `float`, optional (default = `None`)
        lambda of Eq. 13; `None` means the model's own.

    # Returns

    `tuple[torch.Tensor, PerTaskGradients]`
        The losses have shape `(num_tasks,)`.
    """
    batches = Joined.of(batches)
    rows = rows_of(model, batches)
    generators = TaskGenerators(seeds, rows, parameters[0][1].device)
    with per_task_gradients(parameters, rows, weights, generators, weights_of) as recorded:
        losses = model.losses(batches, max_loss_weight)
    return losses.detach(), recorded.backward(losses)


def first_pass(
    model: Learner,
    batches: Sequence[Batch],
    parameters: NamedParameters,
    seeds: Sequence[int],
    max_loss_weight: float | None = None,
) -> Iterator[tuple[slice, torch.Tensor, PerTaskGradients]]:
    """
    Losses and gradients at the meta parameters, of all tasks in one pass, or, if the model does not tell them
    apart, of each in its own. For the parameters see [`losses_and_gradients`](#losses_and_gradients).

    # Returns

    `Iterator[tuple[slice, torch.Tensor, PerTaskGradients]]`
        With the positions of the tasks of each pass.
    """
    batches = Joined.of(batches)
    try:
        together = losses_and_gradients(model, batches, parameters, seeds, max_loss_weight=max_loss_weight)
    except NotSeparableError:
        for position in range(len(batches)):
            own = slice(position, position + 1)
            yield (
                own,
                *losses_and_gradients(
                    model, batches[own], parameters, seeds[own], max_loss_weight=max_loss_weight
                ),
            )
    else:
        yield (slice(None), *together)


class OneTask:
    """
    The [`TaskWeights`](./functional.md#taskweights) of a pass of one task alone.

    # Parameters

    weights : `TaskWeights`
        Of a group of tasks.
    position : `int`
        Of the task in the group.
    """

    def __init__(self, weights: TaskWeights, position: int) -> None:
        self._weights, self._position = weights, position

    def of_task(self, task: int, index: int) -> torch.Tensor:
        assert task == 0
        return self._weights.of_task(self._position, index)

    def stacked(self, index: int) -> Optional[torch.Tensor]:
        found = self._weights.stacked(index)
        return None if found is None else found[self._position : self._position + 1]


class AdaptedTasks(NamedTuple):
    """
    Some tasks after the inner loop. Good until the function that gets it returns.

    # Parameters

    tasks : `list[int]`
        The indices of the tasks.
    weights : `TaskWeights`
        The fast weights of `parameters`, by the position of a task in this list.
    parameters : `NamedParameters`
        Those that were adapted. All others are the meta parameters.
    queries : `Sequence[Batch]`
        The queries of the tasks.
    seeds : `list[int]`
        For the random numbers of the queries, one a task.
    """

    tasks: list[int]
    weights: TaskWeights
    parameters: NamedParameters
    queries: Sequence[Batch]
    seeds: list[int]

    def generators(self, rows: TaskRows) -> TaskGenerators:
        """The random numbers of a pass of the queries."""
        return TaskGenerators(self.seeds, rows, self.parameters[0][1].device)

    def alone(self, position: int) -> "AdaptedTasks":
        """The one task at this position."""
        one = slice(position, position + 1)
        weights = OneTask(self.weights, position)
        return AdaptedTasks(self.tasks[one], weights, self.parameters, self.queries[one], self.seeds[one])


class FastWeights:
    """
    The weights of each task of a group after one step. A matrix is computed when it is first needed, so that
    the product that needs it finds it in the CPU's cache. The vectors of a bucket are computed for all tasks
    at once.

    # Parameters

    optimizer : `InnerOptimizer`
    parameters : `NamedParameters`
        The meta parameters.
    gradients : `PerTaskGradients`
        Of a pass of these tasks, and possibly others.
    first : `int`
        The position of the first task in that pass.
    num_tasks : `int`
    start : `FastWeights`, optional (default = `None`)
        The weights before the step; `None` means the meta parameters.
    last : `bool`, optional (default = `True`)
        Whether no other step follows.
    buffers : `Buffers`, optional (default = `None`)
        Where matrices are kept. `None`, for a last step only: nowhere, they are computed whenever they are
        asked for.
    """

    def __init__(
        self,
        optimizer: InnerOptimizer,
        parameters: NamedParameters,
        gradients: PerTaskGradients,
        first: int,
        num_tasks: int,
        start: "Optional[FastWeights]" = None,
        last: bool = True,
        buffers: Optional[Buffers] = None,
    ) -> None:
        self._optimizer = optimizer
        self._parameters = [parameter.detach() for _, parameter in parameters]
        self._gradients = gradients
        self._first = first
        self._num_tasks = num_tasks
        self._start = start
        self._last = last
        self._buffers = buffers
        self._bucket = {
            index: bucket for bucket, indices in enumerate(optimizer.buckets) for index in indices
        }
        self._vectors: dict[int, torch.Tensor] = {}
        self._done: dict[tuple[int, int], torch.Tensor] = {}

    def of_task(self, task: int, index: int) -> torch.Tensor:
        """
        # Parameters

        task : `int`
            The position of the task in the group.
        index : `int`
            The position of the parameter in the list.
        """
        if (task, index) in self._done:
            return self._done[task, index]
        bucket = self._bucket[index]
        if len(self._optimizer.buckets[bucket]) > 1:
            self._step_vectors(bucket)
            return self._done[task, index]
        gradient: Callable[[], torch.Tensor] = partial(self._gradients.of_task, index, self._first + task)
        value = self._start.of_task(task, index) if self._start else self._parameters[index]
        if self._buffers is None:
            return self._optimizer(bucket, value, gradient, last=self._last, task=task)
        out = self._buffers.of_task(task, index, value)
        self._done[task, index] = self._optimizer(bucket, value, gradient, out, self._last, task)
        return out

    def stacked(self, index: int) -> None:
        """They are computed one by one."""

    def _step_vectors(self, bucket: int) -> torch.Tensor:
        """The vectors of a bucket, end to end, a row a task."""
        if bucket in self._vectors:
            return self._vectors[bucket]
        indices = self._optimizer.buckets[bucket]
        parameters = [self._parameters[index] for index in indices]
        if self._start:
            value = self._start._step_vectors(bucket)
        else:
            value = torch.cat([parameter.flatten() for parameter in parameters]).expand(self._num_tasks, -1)
        out = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        gradient = partial(self._gradients.of_tasks, indices, self._first, self._num_tasks)
        self._vectors[bucket] = self._optimizer(bucket, value, gradient, out, self._last)
        parts = out.split([parameter.numel() for parameter in parameters], dim=1)
        for index, parameter, part in zip(indices, parameters, parts, strict=True):
            for task, own in enumerate(part.unbind()):
                self._done[task, index] = own if parameter.dim() else own.view(())
        return out
