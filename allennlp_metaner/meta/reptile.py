"""Reptile: where the inner loop went is where the meta update goes."""

from collections.abc import Sequence
from typing import Any, Optional

import torch

from allennlp_metaner.meta.adapted import Adapted
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradient import MetaGradient, MetaGradientOutput, checked_reduction, reduced
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.passes import Batch, Learner
from allennlp_metaner.meta.valued import with_values
from allennlp_metaner.nn.joined import joined, num_sentences


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

    Registered as a `MetaGradient` with name "reptile".

    # Parameters

    inner_loop : `InnerLoop`, optional (default = two Adam steps with a learning rate of 3e-5)
    reduction : `str`, optional (default = `"sum"`)
        "sum" or "mean" of the tasks' gradients and losses.

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
        starts = [parameter.detach() for _, parameter in parameters]
        positions = {id(parameter): number for number, (_, parameter) in enumerate(parameters)}

        def moved(adapted: Adapted) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
            """The sum of the queries' losses, and of how far each parameter has moved back."""
            queries, count = adapted.queries, len(adapted.tasks)
            with with_values(adapted.parameters, adapted.values, list(map(num_sentences, queries))):
                loss = model.losses(queries).sum()
            back = {}
            for number, (_, parameter) in enumerate(adapted.parameters):
                position = positions[id(parameter)]
                total = starts[position] * count
                for task in range(count):
                    total -= adapted.values(task, number)
                back[position] = total
            return loss, back

        results = self._inner_loop.map(
            moved,
            model,
            parameters,
            [_sentences(task) for task in tasks],
            [task["query"] for task in tasks],
            together=False,
            learning_rate_scale=learning_rate_scale,
            seed=seed,
        )
        total = [torch.zeros_like(start) for start in starts]
        for _, (_, back) in results:
            for position, difference in back.items():
                total[position].add_(difference)
        loss = torch.stack([loss for _, (loss, _) in results]).sum()
        return reduced(loss, total, self._reduction, len(tasks))


def _sentences(task: dict[str, Any]) -> Batch:
    query, support = task["query"], task["support"]
    return joined([{key: query[key] for key in support}, support])
