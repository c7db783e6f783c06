"""How the work of an inner loop is shared out: microbatches and groups of tasks, and the memory they take."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from queue import SimpleQueue
from typing import Any, NamedTuple, Optional, TypeVar

import torch

from allennlp_metaner.meta.fast_weights import (
    AdaptedTasks,
    Batch,
    Learner,
    first_pass,
    losses_and_gradients,
    rows_of,
)
from allennlp_metaner.meta.functional import TaskWeights, functional_call
from allennlp_metaner.meta.stacked_weights import ACTIVATIONS, STEP_BYTES, STEP_COPIES, WorkerState
from allennlp_metaner.nn.collate import Joined
from allennlp_metaner.nn.memory import bytes_of, bytes_of_a_subword, free_memory_of_gpu, memory_of
from allennlp_metaner.nn.parameters import NamedParameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients
from allennlp_metaner.nn.randomness import TaskGenerators, derived_seed
from allennlp_metaner.nn.task_rows import NotSeparableError

R = TypeVar("R")

QUERY, FROZEN = -1, -2
"""Passes that are no steps, in the seeds of their random numbers."""

EFFICIENT_SUBWORDS = 384
"""From so many rows on, the matrix products of one CPU core gain nothing from more of them."""

MEMORY_SHARE = 4
"""An inner loop plans with the fourth part of the memory: the model, its optimiser and data need some."""


class Limits(NamedTuple):
    """
    What cores and memory allow.

    # Parameters

    num_workers : `int`
        How many microbatches are worked on at the same time.
    group_size : `int`
        How many tasks a worker has fast weights for at the same time.
    microbatch_size : `int`
        How many subwords go through the model together.
    keeps_gradients : `bool`
        Whether there is room for the gradients of the first step until the second, instead of computing them
        again. Where there is not, memory that nobody needs is given back to the system.
    """

    num_workers: int
    group_size: int
    microbatch_size: int
    keeps_gradients: bool


def limits_of(
    model: torch.nn.Module,
    parameters: NamedParameters,
    num_workers: Optional[int] = None,
    group_size: Optional[int] = None,
    microbatch_size: Optional[int] = None,
    batched: int = 0,
) -> Limits:
    """
    # Parameters

    model : `torch.nn.Module`
    parameters : `NamedParameters`
        Those that adapt.
    num_workers, group_size, microbatch_size : `int`, optional (default = `None`)
        If given, what they are to be.
    batched : `int`, optional (default = `0`)
        If the weights of a group are stacked, so that a pass of many tasks is best, how many copies of the
        weights each task needs.
    """
    device = parameters[0][1].device
    memory = available_memory(device)
    copy = bytes_of(parameters)
    by_core = device.type == "cpu" and not batched
    cores = torch.get_num_threads() if by_core else 1
    num_workers = num_workers or max(1, min(cores, memory // copy))
    of_worker = memory // num_workers
    of_subword = bytes_of_a_subword(model)
    if microbatch_size is None:
        # The second half is for the weights.
        share = 1 if not batched else 4 * ACTIVATIONS
        microbatch_size = max(1, int(of_worker // (share * of_subword)))
        if by_core:
            microbatch_size = min(microbatch_size, EFFICIENT_SUBWORDS)
    if not batched:
        group_size = group_size or max(1, of_worker // (2 * copy))
        return Limits(num_workers, group_size, microbatch_size, of_worker >= 2 * copy)
    for_weights = of_worker // 2 - STEP_COPIES * STEP_BYTES
    return Limits(num_workers, group_size or max(1, for_weights // (batched * copy)), microbatch_size, True)


def available_memory(device: torch.device) -> int:
    """The bytes that an inner loop plans with: most of what is free on a GPU, or a part of all there is."""
    if device.type == "cuda":
        return free_memory_of_gpu(device) * 9 // 10
    return memory_of(device) // MEMORY_SHARE


Evaluate = Callable[[AdaptedTasks], R]
"""
What is computed with the fast weights, possibly at the same time in several threads. If it raises
`NotSeparableError` for several tasks, it is called again for each alone.
"""


@dataclass(frozen=True)
class MicrobatchRun:
    """
    One run of an inner loop, which workers call with the tasks of a microbatch.

    # Parameters

    model : `Learner`
    parameters : `NamedParameters`
        Those that adapt.
    supports : `Joined`
        The batches that steps are taken on.
    steps : `Sequence[Sequence[int]]`
        For each task, the batch that each of its steps is taken on.
    queries : `Joined`
    seeds : `Sequence[int]`
        One a task.
    max_loss_weight : `float`, optional
    learning_rate_scale : `float`
    predicts : `bool`
        Whether the queries are predicted and not differentiated. They are then handed on as they are.
    at_once : `bool`
        Whether all tasks of the microbatch are handed on together, with fast weights that are not in memory.
    group_size : `int`
        How many of them otherwise.
    idle : `SimpleQueue[WorkerState]`
        The states of the workers.
    evaluate : `Evaluate`
    """

    model: Learner
    parameters: NamedParameters
    supports: Joined
    steps: Sequence[Sequence[int]]
    queries: Joined
    seeds: Sequence[int]
    max_loss_weight: float | None
    learning_rate_scale: float
    predicts: bool
    at_once: bool
    group_size: int
    idle: "SimpleQueue[WorkerState]"
    evaluate: Evaluate[Any]

    def __call__(self, microbatch: list[int], _: int) -> list[tuple[list[int], Any]]:
        state = self.idle.get()
        try:
            state.optimizer.begin(self.learning_rate_scale)
            found = (self._at_once if self.at_once else self._in_groups)(state, microbatch)
            return [result for adapted in found for result in self._evaluated(adapted)]
        finally:
            self.idle.put(state)

    def _evaluated(self, adapted: AdaptedTasks) -> list[tuple[list[int], Any]]:
        """For all tasks together, or, if they cannot be told apart, for each alone."""
        try:
            return [(adapted.tasks, self.evaluate(adapted))]
        except NotSeparableError:
            if len(adapted.tasks) == 1:
                raise
            alone = [adapted.alone(position) for position in range(len(adapted.tasks))]
            return [(each.tasks, self.evaluate(each)) for each in alone]

    def _at_once(self, state: WorkerState, microbatch: list[int]) -> Iterator[AdaptedTasks]:
        for tasks, gradients in self._first_pass(microbatch):
            weights = state.single_step(gradients, len(tasks))
            yield self._adapted(tasks, weights, self.queries.choose(tasks))

    def _in_groups(self, state: WorkerState, microbatch: list[int]) -> Iterator[AdaptedTasks]:
        for tasks, gradients in self._first_pass(microbatch):
            first = 0
            for _, alike in groupby(tasks, key=lambda task: len(self.steps[task])):
                own = list(alike)
                for start in range(0, len(own), self.group_size):
                    group = own[start : start + self.group_size]
                    yield from self._after_all_steps(state, gradients, first + start, group)
                first += len(own)

    def _first_pass(self, microbatch: list[int]) -> Iterator[tuple[list[int], PerTaskGradients]]:
        supports = self.supports.choose([self.steps[task][0] for task in microbatch])
        seeds = [derived_seed(self.seeds[task], 0) for task in microbatch]
        for own, _, gradients in first_pass(
            self.model, supports, self.parameters, seeds, self.max_loss_weight
        ):
            yield microbatch[own], gradients

    def _after_all_steps(
        self, state: WorkerState, gradients: PerTaskGradients, first: int, group: list[int]
    ) -> Iterator[AdaptedTasks]:
        """A group of tasks that make equally many steps; if they cannot share passes, one after the other."""
        try:
            adapted = self._stepped(state, gradients, first, group)
        except NotSeparableError:
            if len(group) == 1:
                raise
            for position, task in enumerate(group):
                yield self._stepped(state, gradients, first + position, [task])
        else:
            yield adapted

    def _stepped(
        self, state: WorkerState, gradients: PerTaskGradients, first: int, group: list[int]
    ) -> AdaptedTasks:
        num_steps = len(self.steps[group[0]])
        later = [(step, task) for step in range(1, num_steps) for task in group]
        # Queries go apart, since they may be much longer or shorter than support sets.
        supports = self._prepared(
            later, self.supports.choose([self.steps[task][step] for step, task in later])
        )
        queries = self.queries.choose(group)
        if not self.predicts:
            queries = self._prepared([(QUERY, task) for task in group], queries)
        weights = state.step(gradients, first, len(group), None, last=num_steps == 1)
        for step in range(1, num_steps):
            own = supports[(step - 1) * len(group) : step * len(group)]
            seeds = [derived_seed(self.seeds[task], step) for task in group]
            _, gradients = losses_and_gradients(
                self.model, own, self.parameters, seeds, weights, max_loss_weight=self.max_loss_weight
            )
            weights = state.step(gradients, 0, len(group), weights, last=step == num_steps - 1)
        return self._adapted(group, weights, queries)

    def _adapted(self, tasks: list[int], weights: TaskWeights, queries: Sequence[Batch]) -> AdaptedTasks:
        seeds = [derived_seed(self.seeds[task], QUERY) for task in tasks]
        return AdaptedTasks(tasks, weights, self.parameters, queries, seeds)

    def _prepared(self, passes: list[tuple[int, int]], batches: Joined) -> Joined:
        """Batches with the hidden states of frozen layers, each for a pass (step or query) of a task."""
        if not batches:
            return batches
        rows = rows_of(self.model, batches)
        seeds = [derived_seed(self.seeds[task], FROZEN, step) for step, task in passes]
        generators = TaskGenerators(seeds, rows, self.parameters[0][1].device)
        with functional_call([], None, rows, generators):
            return Joined.of(self.model.prepared(batches))
