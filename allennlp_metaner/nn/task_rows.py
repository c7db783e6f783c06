"""Which rows of a layer's inputs belong to which task, where the sentences of many tasks share a pass."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Optional

import torch


class NotSeparableError(Exception):
    """The model uses a parameter, or dropout, in a way that does not tell the tasks of a pass apart."""


class TaskRows:
    """
    The rows of the tasks of a pass: first those of the first task, then those of the second, and so on.
    Layers run on a row a sentence or, where sentences are packed without padding, on a row a subword. The two
    are told apart by their number, which is never the same unless each sentence is a single subword.

    # Parameters

    num_sentences : `Sequence[int]`
        The number of sentences of each task.
    num_packed : `Sequence[Sequence[int]]`, optional (default = `()`)
        The number of packed rows of each task, for each embedder that packs the sentences.
    widths : `Sequence[int]`, optional (default = `None`)
        The length in subwords to which the sentences of each task are padded if they are in no company.
    """

    def __init__(
        self,
        num_sentences: Sequence[int],
        num_packed: Sequence[Sequence[int]] = (),
        widths: Optional[Sequence[int]] = None,
    ) -> None:
        self.num_tasks = len(num_sentences)
        self.widths = widths
        self._of_number: dict[int, Optional[list[int]]] = {}
        for sizes in (list(num_sentences), *map(list, num_packed)):
            # Two embedders may pack other subwords to the same number of rows: whose they are is not known.
            known = self._of_number.get(sum(sizes), sizes)
            self._of_number[sum(sizes)] = sizes if known == sizes else None
        self._slices: dict[int, list[slice]] = {}

    def sizes(self, inputs: torch.Tensor, name: str = "") -> list[int]:
        """
        The number of rows of each task.

        # Parameters

        inputs : `torch.Tensor`
            The inputs of a layer, of at least two dimensions if there are several tasks.
        name : `str`, optional (default = `""`)
            Whose inputs they are, for the message.

        # Raises

        `NotSeparableError`, if there are several tasks, and rows are neither sentences nor packed subwords.
        """
        if self.num_tasks == 1:
            # Of one task, everything is its own, be it a row a sentence or not.
            return [inputs.size(0) if inputs.dim() else 1]
        sizes = self._of_number.get(inputs.size(0)) if inputs.dim() >= 2 else None
        if sizes is None:
            raise NotSeparableError(name)
        return sizes

    def slices(self, inputs: torch.Tensor, name: str = "") -> list[slice]:
        """The rows of each task, see [`sizes`](#sizes)."""
        sizes = self.sizes(inputs, name)
        if self.num_tasks == 1:
            return [slice(None)]
        number = inputs.size(0)
        if number not in self._slices:
            self._slices[number] = [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]
        return self._slices[number]
