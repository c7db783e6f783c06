"""The inner update: a few optimiser steps on a support set."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Optional, Protocol, TypeVar

import torch
from allennlp.common import FromParams, Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import AdamOptimizer, Optimizer

from allennlp_metaner.meta.inner_update import InnerUpdate, inner_update
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.recording import (
    Halves,
    NotSeparableError,
    Recording,
    Values,
    halves_of,
    record,
)
from allennlp_metaner.nn.joined import longest, num_sentences
from allennlp_metaner.nn.linear import FastLinear

R = TypeVar("R")
Batch = dict[str, Any]

MAX_WORKERS = 3
"""Each needs memory for a copy of the trainable parameters. Up to two may have another one, for gradients."""


DTYPES = ("float32", "bfloat16")
"""Of matrix products."""


class Learner(Protocol):
    """What the inner loop asks of a model: losses that leave the model's metrics alone."""

    def losses(self, batches: Sequence[Batch], max_loss_weight: float | None = None) -> torch.Tensor:
        """The training loss of each batch; `max_loss_weight` overrides the own lambda (Eq. 13)."""
        ...

    def prepared(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The batches, with whatever can be computed of them without the trainable parameters."""
        ...


def derived_seed(*parts: int) -> int:
    """A random seed that depends on all `parts` and nothing else, so that any step can be repeated alone."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


class Adapted(NamedTuple):
    """
    The parameters adapted to the support sets of some tasks. Good until `use` returns.

    # Parameters

    tasks : `list[int]`
        The numbers of the tasks.
    values : `Values`
        The adapted values of their parameters; counts the tasks in this list.
    generator : `torch.Generator`
        For the random numbers of what comes next.
    queries : `Sequence[Batch]`
        The queries of the tasks, prepared where they come one by one.
    halves : `Halves`, optional (default = `None`)
        If given, for [`with_values`](./recording.md#with_values).
    """

    tasks: list[int]
    values: Values
    generator: torch.Generator
    queries: Sequence[Batch] = ()
    halves: Optional[Halves] = None


class InnerLoop(FromParams):
    """
    Gradient steps on the support set (Eq. 7-8 in meta-training, Eq. 17 in adaptation), with an optimiser
    whose state is fresh for every task.

    The model's own parameters are never changed. All tasks start at them, so the support sets of a chunk of
    tasks go through the first step together, see [`record`](./recording.md#record). The sentences of one task
    are too few to keep several CPU cores busy, so chunks are worked on at the same time, one a core.

    # Parameters

    optimizer : `Lazy[Optimizer]`, optional (default = Adam with a learning rate of 3e-5)
        Any registered AllenNLP optimiser. Adam, AdamW, BertAdam and plain SGD are fastest.
    num_steps : `int`, optional (default = `2`)
        The number of steps, at least 1.
    chunk_size : `int`, optional (default = `256`)
        How many subwords, padding included, go through the first step together. Activations take memory
        in proportion; the result does not depend on it, but for rounding and the random numbers of dropout.
    num_workers : `int`, optional (default = `None`)
        How many chunks are worked on at the same time. Each needs memory for a copy of the trainable
        parameters. `None`: as many as PyTorch has threads, at most 3; on a GPU, 1.
    dtype : `str`, optional (default = `"float32"`)
        "bfloat16" takes the matrix products of an adaptation by a single step in that precision, with
        the step itself kept apart from the weights, in which it would be lost. For Adam, AdamW and SGD.

    # Raises

    `ConfigurationError`, if an argument is less than 1.
    """

    def __init__(
        self,
        optimizer: Lazy[Optimizer] = Lazy(AdamOptimizer, lr=3e-5),
        num_steps: int = 2,
        chunk_size: int = 256,
        num_workers: Optional[int] = None,
        dtype: str = "float32",
    ) -> None:
        for name, value in (
            ("num_steps", num_steps),
            ("chunk_size", chunk_size),
            ("num_workers", num_workers),
        ):
            if value is not None and value < 1:
                raise ConfigurationError(f"{name}={value} of the inner loop must be at least 1")
        if dtype not in DTYPES:
            raise ConfigurationError(f"dtype={dtype!r} of the inner loop must be one of {', '.join(DTYPES)}")
        self._dtype = dtype
        self._optimizer = optimizer
        self.num_steps = num_steps
        self._chunk_size = chunk_size
        self._num_workers = num_workers
        self._made_for: list[torch.nn.Parameter] = []
        self._workers: list[_Worker] = []

    def map(
        self,
        use: Callable[[Adapted], R],
        model: Learner,
        parameters: NamedParameters,
        supports: Sequence[Batch],
        queries: Optional[Sequence[Batch]] = None,
        together: bool = True,
        max_loss_weight: float | None = None,
        learning_rate_scale: float = 1.0,
        seed: int = 0,
    ) -> list[tuple[list[int], R]]:
        """
        Adapt the parameters to each support set, and do something with them.

        # Parameters

        use : `Callable[[Adapted], R]`
            What is done with the adapted parameters, possibly at the same time in several threads.
        model : `Learner`
        parameters : `NamedParameters`
            The trainable parameters of the model.
        supports : `Sequence[Batch]`
            The batches of support sentences, one a task.
        queries : `Sequence[Batch]`, optional (default = `None`)
            What `use` will run at the adapted parameters.
        together : `bool`, optional (default = `True`)
            If true, if there are queries, and if the inner loop is a single step, `use` gets many tasks with
            queries of like length at once, for one forward pass; a layer's adapted values then exist only
            while they are needed. Otherwise it gets one task at a time.
        max_loss_weight : `float`, optional (default = `None`)
            lambda of Eq. 13; `None` means the model's own.
        learning_rate_scale : `float`, optional (default = `1.0`)
            A factor on the optimiser's learning rate, for warm-up and decay.
        seed : `int`, optional (default = `0`)
            Random numbers depend on it, and on how the tasks fall into chunks.

        # Returns

        `list[tuple[list[int], R]]`
            The numbers of the tasks and what `use` returned, for each of its calls, in a fixed order.
        """
        at_once = queries is not None and together and self.num_steps == 1
        halves = None
        if self._dtype == "bfloat16":
            if not at_once:
                raise ConfigurationError(
                    "dtype = 'bfloat16' of the inner loop is for adaptation by a single step: in "
                    "meta-training, and after the first step, weights of that precision would lose the steps"
                )
            assert isinstance(model, torch.nn.Module)
            halves = halves_of(model)
        num_workers, num_threads = self._parallelism(parameters)
        self._prepare(parameters, num_workers)
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers[:num_workers]:
            idle.put(worker)

        def work(chunk: list[int]) -> list[tuple[list[int], R]]:
            worker = idle.get()
            try:
                pass_ = _Pass(model, parameters, supports, max_loss_weight, halves)
                pass_.generator.manual_seed(derived_seed(seed, chunk[0]))
                worker.update.begin(learning_rate_scale)
                if queries and at_once:
                    found = self._together(worker, pass_, chunk, queries)
                else:
                    found = self._one_by_one(worker, pass_, chunk, None if together else queries)
                return [(adapted.tasks, use(adapted)) for adapted in found]
            finally:
                idle.put(worker)

        chunks = self._chunks(supports, queries if queries and at_once else supports)
        if num_workers == 1:
            return [result for chunk in chunks for result in work(chunk)]
        total_threads = torch.get_num_threads()
        try:
            # Hooks, such as those of AllenNLP's confidence checks, expect one forward pass at a time.
            at_a_time = 1 if _has_hooks(model) else num_workers
            with ThreadPoolExecutor(at_a_time, "inner-loop", torch.set_num_threads, (num_threads,)) as pool:
                return [result for results in pool.map(work, chunks) for result in results]
        finally:
            torch.set_num_threads(total_threads)

    def _one_by_one(
        self, worker: "_Worker", pass_: "_Pass", chunk: list[int], queries: Optional[Sequence[Batch]]
    ) -> Iterator[Adapted]:
        for tasks, first in pass_.first(chunk):
            again, prepared = pass_.prepared(tasks, self.num_steps - 1, queries)
            for position, task in enumerate(tasks):
                values = [parameter.detach() for _, parameter in pass_.parameters]
                worker.step(values, first, position, last=self.num_steps == 1)
                for step in range(2, self.num_steps + 1):
                    recording = pass_.record([again[step - 2][position]], values)
                    worker.step(values, recording, 0, last=step == self.num_steps)
                own_query = prepared[position : position + 1]
                yield Adapted([task], partial(_of_one_task, values), pass_.generator, own_query)

    def _together(
        self, worker: "_Worker", pass_: "_Pass", chunk: list[int], queries: Sequence[Batch]
    ) -> Iterator[Adapted]:
        for tasks, first in pass_.first(chunk):
            values = _Stepped(worker.update, pass_.parameters, first, pass_.halves)
            own_queries = [queries[task] for task in tasks]
            yield Adapted(tasks, values, pass_.generator, own_queries, pass_.halves)

    def _chunks(self, supports: Sequence[Batch], others: Sequence[Batch]) -> list[list[int]]:
        """Tasks of like length, the longest first, since a long chunk at the end would keep all waiting."""
        lengths = [max(longest(s), longest(o)) for s, o in zip(supports, others, strict=True)]
        chunks: list[list[int]] = []
        room = 0
        for task in sorted(range(len(supports)), key=lambda task: (-lengths[task], task)):
            # All tasks of a chunk will be as long as its first, the longest.
            if not chunks or num_sentences(supports[task]) * lengths[chunks[-1][0]] > room:
                chunks.append([])
                room = self._chunk_size
            chunks[-1].append(task)
            room -= num_sentences(supports[task]) * lengths[chunks[-1][0]]
        return chunks

    def _parallelism(self, parameters: NamedParameters) -> tuple[int, int]:
        """The number of workers, and how many threads each has."""
        num_threads = torch.get_num_threads()
        if parameters[0][1].device.type != "cpu":
            return 1, num_threads
        num_workers = self._num_workers or min(num_threads, MAX_WORKERS)
        return num_workers, max(1, num_threads // num_workers)

    def _prepare(self, parameters: NamedParameters, num_workers: int) -> None:
        """
        Building an optimiser logs its settings and sorts parameters into groups, which is too much for every
        task. So they are kept.
        """
        tensors = [parameter for _, parameter in parameters]
        if list(map(id, tensors)) != list(map(id, self._made_for)) or len(self._workers) != num_workers:
            self._made_for, self._workers = tensors, []
        while len(self._workers) < num_workers:
            optimizer = self._optimizer.construct(model_parameters=parameters)
            update = inner_update(optimizer, parameters, keeps_gradients=num_workers < MAX_WORKERS)
            self._workers.append(_Worker(update))


class _Worker:
    """What a thread needs for itself: an optimiser, and memory for the adapted parameters of a task."""

    def __init__(self, update: InnerUpdate) -> None:
        self.update = update
        self._buffers: list[torch.Tensor] = []

    def step(self, values: list[torch.Tensor], recording: Recording, task: int, last: bool) -> None:
        """Replace `values` by those after one step."""
        for block, numbers in enumerate(self.update.blocks):
            value = _end_to_end([values[number] for number in numbers])
            if len(self._buffers) == block:
                self._buffers.append(torch.empty_like(value))
            elif (self._buffers[block].dtype, self._buffers[block].device) != (value.dtype, value.device):
                # The model has moved since.
                self._buffers[block] = torch.empty_like(value)
            gradient = partial(_gradient, recording, numbers, task)
            stepped = self.update(block, value, gradient, self._buffers[block], last)
            for number, part in zip(numbers, _apart(stepped, [values[n] for n in numbers]), strict=True):
                values[number] = part


class _Stepped:
    """`Values` after the first and only step: a matrix is computed when it is needed, and not kept."""

    def __init__(
        self,
        update: InnerUpdate,
        parameters: NamedParameters,
        recording: Recording,
        halves: Optional[Halves],
    ) -> None:
        self._update = update
        self._changes = {n for n, (_, parameter) in enumerate(parameters) if id(parameter) in (halves or {})}
        self._parameters = [parameter.detach() for _, parameter in parameters]
        self._recording = recording
        self._block = {number: block for block, numbers in enumerate(update.blocks) for number in numbers}
        self._vectors: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, task: int, number: int) -> torch.Tensor:
        block = self._block[number]
        numbers = self._update.blocks[block]
        if number in self._changes:
            return self._update.change(block, self._recording.gradient(number, task))
        if len(numbers) == 1:
            return self._stepped(task, block, numbers)
        if (task, number) not in self._vectors:
            stepped = self._stepped(task, block, numbers)
            parts = _apart(stepped, [self._parameters[n] for n in numbers])
            self._vectors.update(((task, n), part) for n, part in zip(numbers, parts, strict=True))
        return self._vectors[task, number]

    def _stepped(self, task: int, block: int, numbers: list[int]) -> torch.Tensor:
        value = _end_to_end([self._parameters[number] for number in numbers])
        return self._update(block, value, partial(_gradient, self._recording, numbers, task))


def _gradient(recording: Recording, numbers: list[int], task: int) -> torch.Tensor:
    return _end_to_end([recording.gradient(number, task) for number in numbers])


def _end_to_end(tensors: list[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat([tensor.flatten() for tensor in tensors])


def _apart(together: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    if len(like) == 1:
        return [together]
    parts = together.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


class _Pass:
    """Passes of the support sets of a chunk, one after the other."""

    def __init__(
        self,
        model: Learner,
        parameters: NamedParameters,
        supports: Sequence[Batch],
        max_loss_weight: float | None,
        halves: Optional[Halves],
    ) -> None:
        self.halves = halves
        self._model = model
        self.parameters = parameters
        self._supports = supports
        self._max_loss_weight = max_loss_weight
        self.generator = torch.Generator(parameters[0][1].device)

    def first(self, chunk: list[int]) -> Iterator[tuple[list[int], Recording]]:
        """The pass at the meta parameters: of all tasks of the chunk together, if the model allows it."""
        supports = [self._supports[task] for task in chunk]
        try:
            together = self.record(supports, None)
        except NotSeparableError:
            for task, support in zip(chunk, supports, strict=True):
                yield [task], self.record([support], None)
        else:
            yield chunk, together

    def prepared(
        self, tasks: list[int], num_copies: int, queries: Optional[Sequence[Batch]]
    ) -> tuple[list[list[Batch]], list[Batch]]:
        """For the passes to come: the support sets, prepared for each step on its own, and the queries."""
        supports = [self._supports[task] for task in tasks]
        own_queries = [queries[task] for task in tasks] if queries else []
        batches = supports * num_copies + own_queries
        if batches:
            with FastLinear(self.generator):
                batches = list(self._model.prepared(batches))
        of_steps = [batches[n * len(tasks) : (n + 1) * len(tasks)] for n in range(num_copies)]
        return of_steps, batches[num_copies * len(tasks) :]

    def record(self, batches: list[Batch], values: Optional[list[torch.Tensor]]) -> Recording:
        """A pass of some support sets."""
        return record(
            lambda: self._model.losses(batches, self._max_loss_weight),
            self.parameters,
            [num_sentences(batch) for batch in batches],
            values,
            self.generator,
            self.halves,
        )[1]


def _has_hooks(model: Any) -> bool:
    modules = model.modules() if isinstance(model, torch.nn.Module) else []
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def _of_one_task(values: list[torch.Tensor], task: int, number: int) -> torch.Tensor:
    return values[number]
