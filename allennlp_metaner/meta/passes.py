"""The passes of support sets through the model that an inner loop is made of."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional, Protocol

import torch

from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.recording import Recording, record
from allennlp_metaner.meta.replacing import Halves, NotSeparableError, Values
from allennlp_metaner.nn.joined import num_sentences
from allennlp_metaner.nn.linear import FastLinear

Batch = dict[str, Any]


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
        supports = self._prepared([self._supports[task] for task in tasks] * num_copies)
        of_steps = [supports[n * len(tasks) : (n + 1) * len(tasks)] for n in range(num_copies)]
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
