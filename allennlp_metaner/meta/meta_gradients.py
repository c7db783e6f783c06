"""The meta-gradient of a batch of tasks: first-order MAML, ANIL, Reptile, and the queries alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

import torch
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.meta.fast_weights import (
    AdaptedTasks,
    Batch,
    Learner,
    first_pass,
    losses_and_gradients,
    rows_of,
)
from allennlp_metaner.meta.functional import functional_call
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.scheduling import QUERY, limits_of
from allennlp_metaner.nn.collate import collate
from allennlp_metaner.nn.microbatches import microbatches_of
from allennlp_metaner.nn.parameters import NamedParameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients
from allennlp_metaner.nn.randomness import derived_seed

REDUCTIONS = ("sum", "mean")

TASKS_ADDED_UP = 32
"""The gradients of so many queries are added up by one product a layer."""

HEAD = ["^classifier\\."]
"""The names of the parameters of the tagger's linear layer."""


class MetaGradientOutput(NamedTuple):
    """The query loss of a batch of tasks, and its gradient with respect to the meta parameters."""

    loss: torch.Tensor
    gradient: list[torch.Tensor]


class TaskBatch(NamedTuple):
    """The arguments of a [`MetaGradient`](#metagradient)."""

    model: Learner
    parameters: NamedParameters
    tasks: Sequence[dict[str, Any]]
    seed: int
    learning_rate_scale: float
    indices: Sequence[int]


class MetaGradient(Registrable):
    """
    An algorithm that computes the gradient for the meta update from a batch of tasks. A subclass says how, in
    `summed`.

    The default implementation is "first_order_maml".

    # Parameters

    inner_loop : `InnerLoop`, optional (default = two Adam steps with a learning rate of 3e-5)
    reduction : `str`, optional (default = `"sum"`)
        "sum" (Eq. 9) or "mean" of the tasks' gradients and losses.

    # Raises

    `ConfigurationError`, for another `reduction`.
    """

    default_implementation = "first_order_maml"

    def __init__(self, inner_loop: Optional[InnerLoop] = None, reduction: str = "sum") -> None:
        if reduction not in REDUCTIONS:
            raise ConfigurationError(f"reduction={reduction!r} must be one of {', '.join(REDUCTIONS)}")
        self._inner_loop = inner_loop or InnerLoop()
        self.reduction = reduction

    def __call__(
        self,
        model: Learner,
        parameters: NamedParameters,
        tasks: Sequence[dict[str, Any]],
        seed: int,
        learning_rate_scale: float = 1.0,
        indices: Optional[Sequence[int]] = None,
    ) -> MetaGradientOutput:
        """
        # Parameters

        model : `Learner`
            Its parameters are the meta parameters, before and after the call.
        parameters : `NamedParameters`
            The trainable ones.
        tasks : `Sequence[dict[str, Any]]`
            Each with a "query" and a "support" batch.
        seed : `int`
            All random numbers (dropout) of a task depend on this and its index.
        learning_rate_scale : `float`, optional (default = `1.0`)
            A factor on the inner learning rate.
        indices : `Sequence[int]`, optional (default = `None`)
            The index of each task, where several processes share a batch. `None`: from 0.

        # Returns

        `MetaGradientOutput`
        """
        loss, gradient = self.summed(
            TaskBatch(model, parameters, tasks, seed, learning_rate_scale, indices or range(len(tasks)))
        )
        if self.reduction == "mean":
            loss = loss / len(tasks)
            torch._foreach_div_(gradient, len(tasks))
        return MetaGradientOutput(loss, gradient)

    def summed(self, batch: TaskBatch) -> MetaGradientOutput:
        """The sums of the tasks' losses and gradients, in memory of their own."""
        raise NotImplementedError


@MetaGradient.register("first_order_maml")
class FirstOrderMaml(MetaGradient):
    """
    First-order MAML (Eq. 7-12): for every task, steps on the support set from the meta parameters, then the
    gradient of the query's loss at the adapted parameters; the gradients of all tasks are added up.

    Registered as a `MetaGradient` with name "first_order_maml". For the parameters see
    [`MetaGradient`](#metagradient).
    """

    def summed(self, batch: TaskBatch) -> MetaGradientOutput:
        total: list[torch.Tensor] = []
        losses: list[torch.Tensor] = []
        for first in range(0, len(batch.tasks), TASKS_ADDED_UP):
            some = batch.tasks[first : first + TASKS_ADDED_UP]
            results = self._inner_loop.adapt_and_differentiate(
                partial(_of_queries, batch.model, batch.parameters),
                batch.model,
                batch.parameters,
                [task["support"] for task in some],
                [task["query"] for task in some],
                batch.seed,
                batch.learning_rate_scale,
                batch.indices[first : first + TASKS_ADDED_UP],
            )
            losses += [loss for _, (loss, _) in results]
            passes = [gradients for _, (_, gradients) in results]
            for index in range(len(batch.parameters)):
                gradient = PerTaskGradients.total(passes, index)
                if first == 0:
                    total.append(gradient)
                else:
                    total[index].add_(gradient)
        return MetaGradientOutput(torch.cat(losses).sum(), total)


def _of_queries(
    model: Learner, parameters: NamedParameters, adapted: AdaptedTasks
) -> tuple[torch.Tensor, PerTaskGradients]:
    """The losses and gradients of the queries at the fast weights."""
    return losses_and_gradients(
        model, adapted.queries, parameters, adapted.seeds, adapted.weights, adapted.parameters
    )


@MetaGradient.register("anil")
class Anil(FirstOrderMaml):
    """
    Almost no inner loop (Raghu et al., 2020): first-order MAML whose inner loop adapts the head alone, while
    the gradient of the query's loss is taken for all parameters.

    Registered as a `MetaGradient` with name "anil".

    # Parameters

    inner_loop : `InnerLoop`, optional (default = two Adam steps of the head with a learning rate of 3e-5)
        With `parameters`; those of the tagger's head are `["^classifier\\."]`.
    reduction : `str`, optional (default = `"sum"`)

    # Raises

    `ConfigurationError`, if the inner loop has no `parameters`, and for another `reduction`.
    """

    def __init__(self, inner_loop: Optional[InnerLoop] = None, reduction: str = "sum") -> None:
        inner_loop = inner_loop or InnerLoop(parameters=HEAD)
        if inner_loop.adapts_all:
            raise ConfigurationError(
                "the inner loop of 'anil' adapts all parameters: give it those of the head, such as "
                f"parameters={HEAD}, or take 'first_order_maml'"
            )
        super().__init__(inner_loop, reduction)


@MetaGradient.register("reptile")
class Reptile(MetaGradient):
    """
    Reptile (Nichol et al., 2018): the gradient of a task is theta - theta', the meta parameters less those
    adapted to the task's sentences. Reptile knows no query: the inner loop runs on the query and its support
    set, as one set of K + 1 sentences, of which the query is the nearest to itself.

    The gradient has the size of the inner loop's steps, and with it the inner learning rate and its schedule.
    With Adam as the meta optimiser, that makes no difference; with SGD, its learning rate is Reptile's
    epsilon if `reduction` is "mean". Parameters that do not adapt have a gradient of 0.

    The loss is the sum or mean of the queries' losses at the adapted parameters, as in first-order MAML,
    although no gradient is taken of it.

    Registered as a `MetaGradient` with name "reptile". For the parameters see
    [`MetaGradient`](#metagradient).
    """

    def summed(self, batch: TaskBatch) -> MetaGradientOutput:
        results = self._inner_loop.adapt_and_differentiate(
            partial(_displacement, batch.model),
            batch.model,
            batch.parameters,
            [_sentences(task) for task in batch.tasks],
            [task["query"] for task in batch.tasks],
            batch.seed,
            batch.learning_rate_scale,
            batch.indices,
        )
        total = [torch.zeros_like(parameter) for _, parameter in batch.parameters]
        positions = {id(parameter): index for index, (_, parameter) in enumerate(batch.parameters)}
        adapting = self._inner_loop.selected(batch.parameters)
        for _, (_, moved) in results:
            for (_, parameter), difference in zip(adapting, moved, strict=True):
                total[positions[id(parameter)]].add_(difference)
        return MetaGradientOutput(torch.stack([loss for _, (loss, _) in results]).sum(), total)


def _sentences(task: dict[str, Any]) -> Batch:
    query, support = task["query"], task["support"]
    return collate([{key: query[key] for key in support}, support])


def _displacement(model: Learner, adapted: AdaptedTasks) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The sum of the queries' losses, and of how far each parameter that adapts has moved back."""
    rows = rows_of(model, adapted.queries)
    with functional_call(adapted.parameters, adapted.weights, rows, adapted.generators(rows)):
        loss = model.losses(adapted.queries).sum()
    moved = []
    for index, (_, parameter) in enumerate(adapted.parameters):
        stacked, tasks = adapted.weights.stacked(index), range(len(adapted.tasks))
        if stacked is None:
            stacked = torch.stack([adapted.weights.of_task(task, index) for task in tasks])
        moved.append((parameter.detach() - stacked).sum(0))
    return loss, moved


@MetaGradient.register("query_only")
class QueryOnly(MetaGradient):
    """
    The gradient of the queries' losses at the meta parameters: first-order MAML (Eq. 9) with an inner
    learning rate of 0, at a third of the cost, since no support set goes through the model. It is the null
    hypothesis of meta-learning: the same tasks, masking and loss, without the inner loop.

    Registered as a `MetaGradient` with name "query_only".

    # Parameters

    microbatch_size : `int`, optional (default = `None`)
        How many subwords go through the model together. Activations take memory in proportion; the result
        does not depend on it, but for rounding. `None`: as for an [`InnerLoop`](./inner_loop.md#innerloop).
    reduction : `str`, optional (default = `"sum"`)
        "sum" or "mean" of the tasks' gradients and losses.

    # Raises

    `ConfigurationError`, for another `reduction`, or a `microbatch_size` below 1.
    """

    def __init__(self, microbatch_size: Optional[int] = None, reduction: str = "sum") -> None:
        if microbatch_size is not None and microbatch_size < 1:
            raise ConfigurationError(f"microbatch_size={microbatch_size} of 'query_only' must be at least 1")
        super().__init__(reduction=reduction)
        self._microbatch_size = microbatch_size

    def summed(self, batch: TaskBatch) -> MetaGradientOutput:
        model, parameters = batch.model, batch.parameters
        queries = [task["query"] for task in batch.tasks]
        seeds = [derived_seed(batch.seed, index, QUERY) for index in batch.indices]
        devices = sorted({p.device.index for _, p in parameters if p.device.type == "cuda"})
        total = [torch.zeros_like(parameter) for _, parameter in parameters]
        losses = []
        assert isinstance(model, torch.nn.Module)
        size = limits_of(model, parameters, microbatch_size=self._microbatch_size).microbatch_size
        with torch.random.fork_rng(devices):
            for microbatch in microbatches_of(queries, queries, size):
                # For models with a dropout of their own.
                torch.manual_seed(seeds[microbatch[0]])
                own, own_seeds = [queries[task] for task in microbatch], [seeds[task] for task in microbatch]
                for _, loss, gradients in first_pass(model, own, parameters, own_seeds):
                    losses.append(loss)
                    for index, gradient in enumerate(total):
                        gradient.add_(PerTaskGradients.total([gradients], index))
        return MetaGradientOutput(torch.cat(losses).sum(), total)
