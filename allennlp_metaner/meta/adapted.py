"""What the inner loop hands on: the parameters adapted to the support sets of some tasks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Optional, TypeVar

import torch

from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.passes import Batch
from allennlp_metaner.meta.replacing import Halves, NotSeparableError, Values

R = TypeVar("R")


class Adapted(NamedTuple):
    """
    The parameters adapted to the support sets of some tasks. Good until `use` returns.

    # Parameters

    tasks : `list[int]`
        The numbers of the tasks.
    values : `Values`
        The adapted values of `parameters`; counts the tasks in this list.
    parameters : `NamedParameters`
        Those that were adapted. All others are the meta parameters.
    generator : `torch.Generator`
        For the random numbers of what comes next.
    queries : `Sequence[Batch]`
        The queries of the tasks; prepared if each task's values are in memory.
    halves : `Halves`, optional (default = `None`)
        If given, for [`with_values`](./valued.md#with_values).
    """

    tasks: list[int]
    values: Values
    parameters: NamedParameters
    generator: torch.Generator
    queries: Sequence[Batch] = ()
    halves: Optional[Halves] = None

    def alone(self, position: int) -> "Adapted":
        """Of the one task at this position."""
        values = partial(_of_task, self.values, position)
        queries = self.queries[position : position + 1]
        return self._replace(tasks=[self.tasks[position]], values=values, queries=queries)


def used(use: Callable[[Adapted], R], adapted: Adapted) -> list[tuple[list[int], R]]:
    """What `use` returns for all tasks together, or, if it cannot tell them apart, for each alone."""
    try:
        return [(adapted.tasks, use(adapted))]
    except NotSeparableError:
        if len(adapted.tasks) == 1:
            raise
        return [([task], use(adapted.alone(position))) for position, task in enumerate(adapted.tasks)]


def _of_task(values: Values, task: int, _: int, number: int) -> torch.Tensor:
    return values(task, number)
