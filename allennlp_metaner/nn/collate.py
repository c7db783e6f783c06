"""Batches joined to one, from which passes take those that they need in a few operations."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, Optional, Union, overload

import torch

Batch = dict[str, Any]


class Joined(Sequence[Batch]):
    """
    Batches whose sentences are in one batch, padded with zeros to the longest. To choose some of them takes
    the same few operations whatever their number is. On a GPU, that is what counts.

    # Parameters

    whole : `dict[str, Any]`
        All sentences, in the order of their batches.
    sizes : `Sequence[int]`
        The number of sentences of each batch.
    widths : `dict[str, Any]`
        For each tensor of `whole` of more than one dimension, the length that it has in each batch.
    """

    def __init__(self, whole: Batch, sizes: Sequence[int], widths: Batch) -> None:
        self.whole = whole
        self.sizes = list(sizes)
        self.widths = widths

    @staticmethod
    def of(batches: Sequence[Batch]) -> "Joined":
        """
        # Parameters

        batches : `Sequence[dict[str, Any]]`
            As AllenNLP's data loaders make them, all with the same keys: tensors of shape `(num_sentences,)`
            or `(num_sentences, length, ...)`, lists with an entry a sentence, and dictionaries of these.
        """
        if isinstance(batches, Joined):
            return batches
        if not batches:
            return Joined({}, [], {})
        sizes = [num_sentences(batch) for batch in batches]
        positions: dict[tuple[int, ...], torch.Tensor] = {}
        joined = {key: _join([batch[key] for batch in batches], sizes, positions) for key in batches[0]}
        whole = batches[0] if len(batches) == 1 else joined
        return Joined(whole, sizes, _widths(batches))

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> "Joined": ...

    def __getitem__(self, index: Union[int, slice]) -> "Union[Batch, Joined]":
        chosen = range(len(self))[index]
        return self.choose([chosen]).whole if isinstance(chosen, int) else self.choose(chosen)

    def choose(self, indices: Sequence[int]) -> "Joined":
        """Some of the batches, possibly several times, padded to the longest of them."""
        indices = list(indices)
        if indices == list(range(len(self))):
            return self
        starts = list(accumulate(self.sizes, initial=0))
        rows = list(chain.from_iterable(range(starts[i], starts[i] + self.sizes[i]) for i in indices))
        widths = _chosen_widths(self.widths, indices)
        return Joined(_Rows(rows).of(self.whole, widths), [self.sizes[i] for i in indices], widths)

    def sentences(self) -> "Joined":
        """Each sentence as a batch, padded as it was."""
        return Joined(self.whole, [1] * sum(self.sizes), _repeated_widths(self.widths, self.sizes))

    def replaced(self, **parts: Any) -> "Joined":
        """With other values of some keys, as long as before."""
        return Joined({**self.whole, **parts}, self.sizes, self.widths)

    @property
    def longest(self) -> list[int]:
        """The length of the longest sentence of each batch, in subwords: the widest of its tensors."""
        return [max(widths) for widths in zip(*_leaves(self.widths), strict=True)]

    def num_subwords(self) -> list[int]:
        """The number of subwords of each batch: where the fullest mask is true. Without, padding counts."""
        masks = [self.sums(mask.reshape(len(mask), -1).sum(1).tolist()) for mask in _masks(self.whole)]
        if not masks:
            return [size * width for size, width in zip(self.sizes, self.longest, strict=True)]
        return [max(numbers) for numbers in zip(*masks, strict=True)]

    def sums(self, numbers: Sequence[int]) -> list[int]:
        """The sum of each batch, of a number a sentence."""
        return [sum(numbers[start:end]) for start, end in pairwise(accumulate(self.sizes, initial=0))]


def _join(values: list[Any], sizes: list[int], positions: dict[tuple[int, ...], torch.Tensor]) -> Any:
    first = values[0]
    if len(values) == 1:
        return first
    if isinstance(first, dict):
        return {key: _join([value[key] for value in values], sizes, positions) for key in first}
    if not isinstance(first, torch.Tensor):
        return [entry for value in values for entry in value]
    widths = tuple(value.size(1) for value in values) if first.dim() > 1 else ()
    if len({*widths}) <= 1:
        return torch.cat(values)
    width = max(widths)
    if widths not in positions:
        starts = accumulate((size * width for size in sizes), initial=0)
        places = (
            range(start + row * width, start + row * width + own)
            for start, size, own in zip(starts, sizes, widths, strict=False)
            for row in range(size)
        )
        positions[widths] = torch.tensor(list(chain.from_iterable(places)), device=first.device)
    entries = torch.cat([value.flatten(0, 1) for value in values])
    whole = entries.new_zeros(sum(sizes) * width, *entries.shape[1:])
    return whole.index_copy_(0, positions[widths], entries).unflatten(0, (sum(sizes), width))


def _widths(batches: Sequence[Any]) -> Batch:
    found: Batch = {}
    for key, value in batches[0].items():
        values = [batch[key] for batch in batches]
        if isinstance(value, dict):
            found[key] = _widths(values)
        elif isinstance(value, torch.Tensor) and value.dim() > 1:
            found[key] = [each.size(1) for each in values]
    return found


def _chosen_widths(widths: Batch, indices: list[int]) -> Batch:
    return {
        key: _chosen_widths(value, indices) if isinstance(value, dict) else [value[i] for i in indices]
        for key, value in widths.items()
    }


def _repeated_widths(widths: Batch, sizes: list[int]) -> Batch:
    def repeated(value: list[int]) -> list[int]:
        return [width for width, size in zip(value, sizes, strict=True) for _ in range(size)]

    return {
        key: _repeated_widths(value, sizes) if isinstance(value, dict) else repeated(value)
        for key, value in widths.items()
    }


class _Rows:
    """Sentences to choose from batches, by their numbers."""

    def __init__(self, rows: list[int]) -> None:
        self._rows = rows
        self._start = rows[0] if rows else 0
        self._is_range = rows == list(range(self._start, self._start + len(rows)))
        self._index: Optional[torch.Tensor] = None

    def of(self, whole: Batch, widths: Batch) -> Batch:
        return {key: self._of(value, widths.get(key)) for key, value in whole.items()}

    def _of(self, value: Any, widths: Any) -> Any:
        if isinstance(value, dict):
            return self.of(value, widths or {})
        if not isinstance(value, torch.Tensor):
            return [value[row] for row in self._rows]
        if widths is not None and (width := max(widths, default=0)) < value.size(1):
            value = value.narrow(1, 0, width)
        if self._is_range:
            return value.narrow(0, self._start, len(self._rows))
        if self._index is None:
            self._index = torch.tensor(self._rows, device=value.device)
        return value.index_select(0, self._index)


def _leaves(widths: Batch) -> Iterator[list[int]]:
    for value in widths.values():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield value


def collate(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    One batch of all sentences of several, in their order, padded with zeros to the longest. For the batches
    see [`Joined`](#joined).
    """
    return Joined.of(batches).whole


def longest(batch: dict[str, Any]) -> int:
    """The length of the longest sentence of a batch, in subwords: the widest of its tensors."""
    return max(
        longest(value) if isinstance(value, dict) else value.size(1)
        for value in batch.values()
        if isinstance(value, dict) or (isinstance(value, torch.Tensor) and value.dim() > 1)
    )


def num_subwords(batch: dict[str, Any]) -> int:
    """The number of subwords of a batch, see [`Joined`](#joined)."""
    return Joined.of([batch]).num_subwords()[0]


def _masks(batch: dict[str, Any]) -> Iterator[torch.Tensor]:
    for value in batch.values():
        if isinstance(value, dict):
            yield from _masks(value)
        elif isinstance(value, torch.Tensor) and value.dtype == torch.bool:
            yield value


def num_sentences(batch: dict[str, Any]) -> int:
    """The number of sentences of a batch."""
    first = next(iter(batch.values()))
    return num_sentences(first) if isinstance(first, dict) else len(first)


def first_sentences(batch: dict[str, Any], number: Optional[int]) -> dict[str, Any]:
    """The first sentences of a batch, padded as before; all of them, if `number` is `None`."""
    if number is None:
        return batch
    return {
        key: first_sentences(value, number) if isinstance(value, dict) else value[:number]
        for key, value in batch.items()
    }
