"""The passes of support sets through the model that an inner loop is made of."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any, Optional, Protocol

import torch

from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.recording import Recording, record
from allennlp_metaner.meta.replacing import Halves, NotSeparableError, Values
from allennlp_metaner.nn.joined import num_sentences, sentences
from allennlp_metaner.nn.linear import FastLinear

Batch = dict[str, Any]

BATCHINGS = ("together", "one_by_one")
"""Of the sentences of a support set, in steps."""


def batches_of_steps(support: Batch, num_steps: int, batching: str) -> list[Batch]:
    """
    What each step of an inner loop is taken on.

    # Parameters

    support : `Batch`
        The support set, the nearest sentence first.
    num_steps : `int`
    batching : `str`
        "together": `num_steps` times the whole support set. "one_by_one": `num_steps` times one sentence of
        it after the other.
    """
    return (sentences(support) if batching == "one_by_one" else [support]) * num_steps


class Learner(Protocol):
    """
    What the inner loop asks of a model, which is a `torch.nn.Module`: losses that leave its metrics alone.
    """

    def losses(self, batches: Sequence[Batch], max_loss_weight: float | None = None) -> torch.Tensor:
        """The training loss of each batch; `max_loss_weight` overrides the own lambda (Eq. 13)."""
        ...

    def prepared(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The batches, with whatever can be computed of them without the trainable parameters."""
        ...


class SupportPasses:
    """
    Passes of the support sets of a chunk, one after the other.

    # Parameters

    model : `Learner`
    parameters : `NamedParameters`
        Those that adapt.
    steps : `Sequence[Sequence[Batch]]`
        For each task, what each of its steps is taken on.
    max_loss_weight : `float`, optional
    halves : `Halves`, optional
    """

    def __init__(
        self,
        model: Learner,
        parameters: NamedParameters,
        steps: Sequence[Sequence[Batch]],
        max_loss_weight: float | None,
        halves: Optional[Halves],
    ) -> None:
        self.halves = halves
        self._model = model
        self.parameters = parameters
        self.steps = steps
        self._max_loss_weight = max_loss_weight
        self.generator = torch.Generator(parameters[0][1].device)

    def first(self, chunk: list[int]) -> Iterator[tuple[list[int], Recording]]:
        """The pass at the meta parameters: of all tasks of the chunk together, if the model allows it."""
        supports = [self.steps[task][0] for task in chunk]
        try:
            together = self.record(supports, None)
        except NotSeparableError:
            for task, support in zip(chunk, supports, strict=True):
                yield [task], self.record([support], None)
        else:
            yield chunk, together

    def groups(self, tasks: list[int], most: int) -> Iterator[tuple[int, list[int]]]:
        """At `most` so many tasks that make equally many steps, and where in `tasks` the first of them is."""
        first = 0
        for _, alike in groupby(tasks, key=lambda task: len(self.steps[task])):
            own = list(alike)
            for start in range(0, len(own), most):
                yield first + start, own[start : start + most]
            first += len(own)

    def prepared(
        self, tasks: list[int], queries: Optional[Sequence[Batch]]
    ) -> tuple[list[list[Batch]], list[Batch]]:
        """
        For the passes to come: the support sets, prepared for each step on its own, and the queries. All
        tasks make equally many steps.
        """
        num_steps = len(self.steps[tasks[0]])
        later = [[self.steps[task][number] for task in tasks] for number in range(1, num_steps)]
        supports = iter(self._prepared([batch for of_step in later for batch in of_step]))
        of_steps = [list(islice(supports, len(tasks))) for _ in later]
        # Apart, since they may be much longer or shorter.
        return of_steps, self._prepared([queries[task] for task in tasks] if queries else [])

    def _prepared(self, batches: list[Batch]) -> list[Batch]:
        if not batches:
            return []
        with FastLinear(self.generator):
            return list(self._model.prepared(batches))

    def record(self, batches: list[Batch], values: Optional[Values]) -> Recording:
        """A pass of some support sets."""
        return record(
            lambda: self._model.losses(batches, self._max_loss_weight),
            self.parameters,
            [num_sentences(batch) for batch in batches],
            values,
            self.generator,
            self.halves,
        )[1]
