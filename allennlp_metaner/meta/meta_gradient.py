"""The meta-gradient of a batch of tasks."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.meta.adapted import Adapted
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.passes import Learner
from allennlp_metaner.meta.recording import Recording, record
from allennlp_metaner.meta.seeds import derived_seed
from allennlp_metaner.nn.joined import num_sentences

REDUCTIONS = ("sum", "mean")

TASKS_ADDED_UP = 32
"""The gradients of so many queries are added up by one matrix product a layer."""


class MetaGradientOutput(NamedTuple):
    """The query loss of a batch of tasks, and its gradient with respect to the meta parameters."""

    loss: torch.Tensor
    gradient: list[torch.Tensor]


def checked_reduction(reduction: str) -> str:
    """
    # Raises

    `ConfigurationError`, if it is none of the `REDUCTIONS`.
    """
    if reduction not in REDUCTIONS:
        raise ConfigurationError(f"reduction={reduction!r} must be one of {', '.join(REDUCTIONS)}")
    return reduction


def reduced(
    loss: torch.Tensor, total: list[torch.Tensor], reduction: str, num_tasks: int
) -> MetaGradientOutput:
    """
    Summed losses and gradients, or the means of so many tasks.

    # Parameters

    loss : `torch.Tensor`
        The sum over the tasks.
    total : `list[torch.Tensor]`
        The sums of their gradients, which a mean is written over.
    reduction : `str`
        One of the `REDUCTIONS`.
    num_tasks : `int`

    # Returns

    `MetaGradientOutput`
    """
    if reduction == "mean":
        loss = loss / num_tasks
        torch._foreach_div_(total, num_tasks)
    return MetaGradientOutput(loss, total)


class MetaGradient(Registrable):
    """
    An algorithm that computes the gradient for the meta update from a batch of tasks.

    The default implementation is "first_order_maml".
    """

    default_implementation = "first_order_maml"

    def __call__(
        self,
        model: Learner,
        parameters: NamedParameters,
        tasks: Sequence[dict[str, Any]],
        seed: int,
        learning_rate_scale: float = 1.0,
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
            All random numbers (dropout) depend on this and on how the tasks fall into chunks.
        learning_rate_scale : `float`, optional (default = `1.0`)
            A factor on the inner learning rate.

        # Returns

        `MetaGradientOutput`
        """
        raise NotImplementedError


HEAD = ["^classifier\\."]
"""The names of the parameters of the tagger's linear layer."""


@MetaGradient.register("first_order_maml")
class FirstOrderMaml(MetaGradient):
    """
    First-order MAML (Eq. 7-12): for every task, steps on the support set from the meta parameters, then the
    gradient of the query's loss at the adapted parameters; the gradients of all tasks are added up.

    Registered as a `MetaGradient` with name "first_order_maml".

    # Parameters

    inner_loop : `InnerLoop`, optional (default = two Adam steps with a learning rate of 3e-5)
    reduction : `str`, optional (default = `"sum"`)
        "sum" (Eq. 9) or "mean" of the tasks' gradients and losses.

    # Raises

    `ConfigurationError`, for another `reduction`.
    """

    def __init__(self, inner_loop: Optional[InnerLoop] = None, reduction: str = "sum") -> None:
        self._inner_loop = inner_loop or InnerLoop()
        self._reduction = checked_reduction(reduction)

    def __call__(
        self,
        model: Learner,
        parameters: NamedParameters,
        tasks: Sequence[dict[str, Any]],
        seed: int,
        learning_rate_scale: float = 1.0,
    ) -> MetaGradientOutput:
        total: list[torch.Tensor] = []
        losses: list[torch.Tensor] = []
        for first in range(0, len(tasks), TASKS_ADDED_UP):
            some = tasks[first : first + TASKS_ADDED_UP]

            def query(adapted: Adapted) -> Any:
                queries = adapted.queries
                sizes = [num_sentences(query) for query in queries]
                return record(
                    lambda: model.losses(queries),
                    parameters,
                    sizes,
                    adapted.values,
                    adapted.generator,
                    valued=adapted.parameters,
                )

            results = self._inner_loop.map(
                query,
                model,
                parameters,
                [task["support"] for task in some],
                [task["query"] for task in some],
                together=False,
                learning_rate_scale=learning_rate_scale,
                seed=derived_seed(seed, first),
            )
            losses += [loss for _, (loss, _) in results]
            recordings = [recording for _, (_, recording) in results]
            for number in range(len(parameters)):
                gradient = Recording.total(recordings, number)
                if first == 0:
                    total.append(gradient)
                else:
                    total[number].add_(gradient)
        return reduced(torch.cat(losses).sum(), total, self._reduction, len(tasks))


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
