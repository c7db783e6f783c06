"""Which rows of a layer's inputs belong to which task, where the sentences of many tasks share a pass."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Optional

import torch


class NotSeparableError(Exception):
    """The model uses a parameter, or dropout, in a way that does not tell the tasks of a pass apart."""


class Padding:
    """
    The rows of several tasks as a tensor in which each has equally many, so that one operation can work on
    all tasks with weights of their own.

    # Parameters

    sizes : `Sequence[int]`
        The number of rows of each task.
    device : `torch.device`
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self._sizes = sizes
        self._device = device
        self._width = max(sizes)
        self._is_ragged = any(size != self._width for size in sizes)

    @cached_property
    def tasks(self) -> torch.Tensor:
        """The task of each row."""
        return self._indices([task for task, size in enumerate(self._sizes) for _ in range(size)])

    @cached_property
    def positions(self) -> torch.Tensor:
        """The position of each row among those of its task."""
        return self._indices([position for size in self._sizes for position in range(size)])

    @cached_property
    def _there(self) -> torch.Tensor:
        """
        The row at each position. That of padding is one of the same task: were it another's, infinite numbers
        of a task would reach all others.
        """
        starts = accumulate(self._sizes, initial=0)
        rows = [
            [*range(start, start + size), *[start] * (self._width - size)]
            for start, size in zip(starts, self._sizes, strict=False)
        ]
        return self._indices(list(chain.from_iterable(rows)))

    @cached_property
    def _back(self) -> torch.Tensor:
        """The position of each row."""
        starts = range(0, self._width * len(self._sizes), self._width)
        rows = [range(start, start + size) for start, size in zip(starts, self._sizes, strict=True)]
        return self._indices(list(chain.from_iterable(rows)))

    def _indices(self, indices: list[int]) -> torch.Tensor:
        return torch.tensor(indices, device=self._device)

    def pad(self, rows: torch.Tensor, zeros: bool = True) -> torch.Tensor:
        """
        # Parameters

        rows : `torch.Tensor`
            Shape `(num_rows, ...)`.
        zeros : `bool`, optional (default = `True`)
            Whether padding is zero. If not, it may be anything of the same task.

        # Returns

        `torch.Tensor`
            Shape `(num_tasks, width, ...)`.
        """
        shape = (len(self._sizes), self._width, *rows.shape[1:])
        if not self._is_ragged:
            return rows.unflatten(0, shape[:2])
        if not zeros:
            return rows.index_select(0, self._there).view(shape)
        return rows.new_zeros(shape[0] * shape[1], *shape[2:]).index_copy_(0, self._back, rows).view(shape)

    def unpad(self, padded: torch.Tensor) -> torch.Tensor:
        """From shape `(num_tasks, width, ...)` to `(num_rows, ...)`."""
        rows = padded.flatten(0, 1)
        return rows.index_select(0, self._back) if self._is_ragged else rows

    def of_rows(self, values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        values : `torch.Tensor`
            A vector a task, shape `(num_tasks, dim)`.
        rows : `torch.Tensor`
            Shape `(num_rows, ..., dim)`.

        # Returns

        `torch.Tensor`
            The vector of each row's task, as to be multiplied with `rows`, shape `(num_rows, 1, ..., dim)`.
        """
        return values.index_select(0, self.tasks).view(len(rows), *[1] * (rows.dim() - 2), -1)


class RowSlices(list[slice]):
    """The rows of each task of a pass."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(slice(*ends) for ends in pairwise(accumulate(sizes, initial=0)))
        self.sizes = sizes
        self._paddings: dict[tuple[int, int, torch.device], Padding] = {}

    def padding(self, device: torch.device, first: int = 0, num_tasks: Optional[int] = None) -> Padding:
        """Of so many tasks, from `first` on; `None` means all."""
        last = len(self) if num_tasks is None else first + num_tasks
        key = (first, last, device)
        if key not in self._paddings:
            self._paddings[key] = Padding(self.sizes[first:last], device)
        return self._paddings[key]

    def of(self, first: int, num_tasks: int) -> slice:
        """The rows of so many tasks, from `first` on."""
        return slice(self[first].start, self[first + num_tasks - 1].stop)


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
        self._slices: dict[int, RowSlices] = {}

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

    def slices(self, inputs: torch.Tensor, name: str = "") -> RowSlices:
        """The rows of each task, see [`sizes`](#sizes)."""
        sizes = self.sizes(inputs, name)
        (number,) = inputs.shape[:1] or (1,)
        if number not in self._slices:
            self._slices[number] = RowSlices(sizes)
        return self._slices[number]
