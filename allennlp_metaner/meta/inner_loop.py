"""The inner loop: a few optimiser steps on a support set."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from queue import SimpleQueue
from typing import Optional, TypeVar

import torch
from allennlp.common import FromParams, Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import AdamOptimizer, Optimizer

from allennlp_metaner.concurrency import Workers, exclusive
from allennlp_metaner.meta.fast_weights import Batch, Learner
from allennlp_metaner.meta.inner_optimizers import inner_optimizer
from allennlp_metaner.meta.scheduling import Evaluate, MicrobatchRun, limits_of
from allennlp_metaner.meta.stacked_weights import WorkerState, copies_of
from allennlp_metaner.nn.collate import Joined
from allennlp_metaner.nn.memory import give_back_free_memory, no_garbage_collection
from allennlp_metaner.nn.microbatches import microbatches_of
from allennlp_metaner.nn.parameters import NamedParameters, selected
from allennlp_metaner.nn.randomness import derived_seed

R = TypeVar("R")

BATCHINGS = ("together", "one_by_one")
"""Of the sentences of a support set, in steps."""

EXECUTIONS = ("auto", "per_task", "batched")
"""How the tasks of a group, each with weights of its own, go through a layer."""


class InnerLoop(FromParams):
    """
    Gradient steps on the support set (Eq. 7-8 in meta-training, Eq. 17 in adaptation), with an optimiser
    whose state is fresh for every task.

    The model's own parameters are never changed. All tasks start at them, so the support sets of a microbatch
    of tasks go through the first step together, in one pass that gives
    [`per_task_gradients`](./functional.md#per_task_gradients). The sentences of one task are too few to keep
    several CPU cores busy, so several microbatches are worked on at the same time, each by a worker. Random
    numbers belong to the task: results do not depend on workers and microbatches, but for rounding.

    # Parameters

    optimizer : `Lazy[Optimizer]`, optional (default = Adam with a learning rate of 3e-5)
        Any registered AllenNLP optimiser. Adam, AdamW, BertAdam and plain SGD are fastest.
    num_steps : `int`, optional (default = `2`)
        The number of steps, at least 1; with `batching` = "one_by_one", on each sentence.
    microbatch_size : `int`, optional (default = `None`)
        How many subwords go through the first step together. Activations take memory in proportion. `None`:
        what cores and memory allow, see [`limits_of`](./scheduling.md#limits_of); on CPUs at most 384.
    group_size : `int`, optional (default = `None`)
        How many tasks of a microbatch go through later steps and the query together. Each needs memory for
        two copies of the trainable parameters, its fast weights and its first gradients. `None`: as many as a
        quarter of the memory, shared out to the workers, has room for.
    num_workers : `int`, optional (default = `None`)
        How many microbatches are worked on at the same time. Each needs memory for a group of tasks.
        `None`: as many as PyTorch has threads, if memory allows; on a GPU, 1.
    batching : `str`, optional (default = `"together"`)
        "together" takes each step on all sentences of the support set, "one_by_one" on one after the other,
        the nearest first, and begins again with it `num_steps` times. Adam's state lasts through all steps.
    parameters : `list[str]`, optional (default = `None`)
        Which of the trainable parameters adapt: those whose names one of these regular expressions matches
        anywhere (`["^classifier\\."]` is the tagger's head). All others stay at the meta parameters, and no
        gradient goes through layers below all that adapts. `None`: all.
    execution : `str`, optional (default = `"auto"`)
        "per_task": a layer's products are computed for one task after the other, which is fastest on CPUs.
        "batched": for all tasks of a group in one operation, so that a GPU is not kept waiting. "auto":
        "batched" on a GPU, with an optimiser that can. Results are the same but for rounding.

    # Raises

    `ConfigurationError`, if an argument is out of range, if `parameters` match nothing, and for "batched"
    with another optimiser than Adam, AdamW, BertAdam and plain SGD.
    """

    def __init__(
        self,
        optimizer: Lazy[Optimizer] = Lazy(AdamOptimizer, lr=3e-5),
        num_steps: int = 2,
        microbatch_size: Optional[int] = None,
        group_size: Optional[int] = None,
        num_workers: Optional[int] = None,
        batching: str = "together",
        parameters: Optional[list[str]] = None,
        execution: str = "auto",
    ) -> None:
        for name, value in (
            ("num_steps", num_steps),
            ("microbatch_size", microbatch_size),
            ("group_size", group_size),
            ("num_workers", num_workers),
        ):
            if value is not None and value < 1:
                raise ConfigurationError(f"{name}={value} of the inner loop must be at least 1")
        for name, choice, choices in (
            ("batching", batching, BATCHINGS),
            ("execution", execution, EXECUTIONS),
        ):
            if choice not in choices:
                raise ConfigurationError(
                    f"{name}={choice!r} of the inner loop must be one of {', '.join(choices)}"
                )
        self._execution = execution
        self._batching = batching
        self._regexes = parameters
        self.adapts_all = parameters is None
        self._optimizer = optimizer
        self.num_steps = num_steps
        self._sizes = (num_workers, group_size, microbatch_size)
        self._made_for: list[torch.nn.Parameter] = []
        self._states: list[WorkerState] = []
        self._workers = Workers()

    def adapt_and_predict(
        self,
        predict: Evaluate[R],
        model: Learner,
        parameters: NamedParameters,
        supports: Sequence[Batch],
        queries: Sequence[Batch],
        max_loss_weight: float | None = None,
    ) -> list[tuple[list[int], R]]:
        """
        Adapt the parameters to each support set, and predict with them. If the inner loop is a single step,
        all tasks of a microbatch are predicted in one pass without gradients, and the fast weights of a layer
        exist only while they are needed.

        # Parameters

        predict : `Callable[[AdaptedTasks], R]`
            Gets the queries as they are, see [`Evaluate`](./scheduling.md#evaluate).
        model : `Learner`
        parameters : `NamedParameters`
            The trainable parameters of the model.
        supports : `Sequence[Batch]`
            The batches of support sentences, one a task.
        queries : `Sequence[Batch]`
            What is predicted, one a task.
        max_loss_weight : `float`, optional (default = `None`)
            lambda of Eq. 13; `None` means the model's own.

        # Returns

        `list[tuple[list[int], R]]`
            The indices of the tasks and what `predict` returned, for each of its calls, in a fixed order.
        """
        return self._map(predict, model, parameters, supports, queries, max_loss_weight=max_loss_weight)

    def adapt_and_differentiate(
        self,
        differentiate: Evaluate[R],
        model: Learner,
        parameters: NamedParameters,
        supports: Sequence[Batch],
        queries: Sequence[Batch],
        seed: int,
        learning_rate_scale: float = 1.0,
        indices: Optional[Sequence[int]] = None,
    ) -> list[tuple[list[int], R]]:
        """
        Adapt the parameters to each support set, and compute with the fast weights of a group of tasks, which
        are all in memory.

        # Parameters

        differentiate : `Callable[[AdaptedTasks], R]`
            Gets queries with the hidden states of frozen layers, see
            [`Evaluate`](./scheduling.md#evaluate).
        model, parameters, supports, queries :
            See [`adapt_and_predict`](#adapt_and_predict).
        seed : `int`
            All random numbers (dropout) of a task depend on this and its index.
        learning_rate_scale : `float`, optional (default = `1.0`)
            A factor on the optimiser's learning rate, for warm-up and decay.
        indices : `Sequence[int]`, optional (default = `None`)
            The index of each task, for the random numbers. `None`: from 0.

        # Returns

        `list[tuple[list[int], R]]`
            The indices of the tasks (from 0) and what `differentiate` returned, for each of its calls, in a
            fixed order.
        """
        return self._map(
            differentiate,
            model,
            parameters,
            supports,
            queries,
            predicts=False,
            seeds=[derived_seed(seed, index) for index in indices or range(len(supports))],
            learning_rate_scale=learning_rate_scale,
        )

    def selected(self, parameters: NamedParameters) -> NamedParameters:
        """Those of the trainable parameters that adapt; a `ConfigurationError`, if there are none."""
        return selected(parameters, self._regexes, "the inner loop")

    def passes(self, supports: Joined) -> tuple[Joined, list[list[int]]]:
        """What steps are taken on, and for each task, which of these batches its steps are taken on."""
        if self._batching == "together":
            return supports, [[task] * self.num_steps for task in range(len(supports))]
        ends = pairwise(accumulate(supports.sizes, initial=0))
        return supports.sentences(), [list(range(*own)) * self.num_steps for own in ends]

    def make_optimizer(self, parameters: NamedParameters) -> Optimizer:
        """A new optimiser for these parameters."""
        return self._optimizer.construct(model_parameters=parameters)

    @exclusive()
    def _map(
        self,
        evaluate: Evaluate[R],
        model: Learner,
        parameters: NamedParameters,
        supports: Sequence[Batch],
        queries: Sequence[Batch],
        predicts: bool = True,
        seeds: Optional[Sequence[int]] = None,
        learning_rate_scale: float = 1.0,
        max_loss_weight: float | None = None,
    ) -> list[tuple[list[int], R]]:
        assert isinstance(model, torch.nn.Module)
        parameters = self.selected(parameters)
        batched = self._copies_if_batched(parameters)
        limits = limits_of(model, parameters, *self._sizes, batched=batched)
        joined, others = Joined.of(supports), Joined.of(queries)
        passes, steps = self.passes(joined)
        seeds = seeds or [derived_seed(0, task) for task in range(len(supports))]
        cores = 1 if batched else torch.get_num_threads()
        microbatches = microbatches_of(joined, others, limits.microbatch_size, cores)
        num_workers = max(1, min(limits.num_workers, len(microbatches)))
        run = MicrobatchRun(
            model=model,
            parameters=parameters,
            supports=passes,
            steps=steps,
            queries=others,
            seeds=seeds,
            max_loss_weight=max_loss_weight,
            learning_rate_scale=learning_rate_scale,
            predicts=predicts,
            at_once=predicts and all(len(batches) == 1 for batches in steps),
            group_size=limits.group_size,
            idle=self._idle_states(parameters, num_workers, limits.keeps_gradients, batched > 0),
            evaluate=evaluate,
        )
        # Such as that of the last gradient, which the workers' threads have no use for.
        self._give_back_memory(limits.keeps_gradients)
        try:
            with no_garbage_collection():
                results = self._workers.map(
                    run, microbatches, [seeds[tasks[0]] for tasks in microbatches], model, num_workers
                )
        finally:
            self._give_back_memory(limits.keeps_gradients)
        return [result for of_microbatch in results for result in of_microbatch]

    def _give_back_memory(self, keeps_gradients: bool) -> None:
        if not keeps_gradients:
            for state in self._states:
                state.buffers.clear()
            give_back_free_memory()

    def _copies_if_batched(self, parameters: NamedParameters) -> int:
        """How many copies of its weights a task needs, if a group goes through a layer at once; or else 0."""
        on_gpu = parameters[0][1].device.type != "cpu"
        if self._execution == "per_task" or (self._execution == "auto" and not on_gpu):
            return 0
        optimizer = self._states_of(parameters, 1)[0].optimizer
        if self._execution == "batched" and not optimizer.stacks:
            raise ConfigurationError(
                "execution='batched' of the inner loop has no steps of all tasks at once for this optimizer "
                f"({optimizer.name}): take Adam, AdamW, BertAdam, or SGD, without momentum, amsgrad and "
                "maximize, or execution='auto'"
            )
        return copies_of(optimizer, self.num_steps) if optimizer.stacks else 0

    def _idle_states(
        self, parameters: NamedParameters, num_workers: int, keeps_gradients: bool, batched: bool
    ) -> "SimpleQueue[WorkerState]":
        idle: SimpleQueue[WorkerState] = SimpleQueue()
        for state in self._states_of(parameters, num_workers):
            state.optimizer.keeps_gradients = keeps_gradients
            state.batched = batched
            idle.put(state)
        return idle

    def _states_of(self, parameters: NamedParameters, num_workers: int) -> list[WorkerState]:
        """Those of all workers. Building an optimiser, which logs, is too much for every task."""
        tensors = [parameter for _, parameter in parameters]
        if list(map(id, tensors)) != list(map(id, self._made_for)):
            self._made_for, self._states, self._workers = tensors, [], Workers()
        while len(self._states) < num_workers:
            optimizer = inner_optimizer(self.make_optimizer(parameters), parameters)
            self._states.append(WorkerState(optimizer, parameters))
        return self._states
