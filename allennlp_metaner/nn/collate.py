"""Batches joined to one."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional

import torch
from torch.nn.utils.rnn import pad_sequence


def collate(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    One batch of all sentences of several, in their order, padded with zeros to the longest.

    # Parameters

    batches : `Sequence[dict[str, Any]]`
        As AllenNLP's data loaders make them, all with the same keys: tensors of shape `(num_sentences,)` or
        `(num_sentences, length, ...)`, lists with an entry a sentence, and dictionaries of these.

    # Returns

    `dict[str, Any]`
    """
    if len(batches) == 1:
        return batches[0]
    return {key: _collate([batch[key] for batch in batches]) for key in batches[0]}


def _collate(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return collate(values)
    if isinstance(values[0], torch.Tensor) and values[0].dim() == 1:
        return torch.cat(values)
    if isinstance(values[0], torch.Tensor):
        return pad_sequence([row for value in values for row in value], batch_first=True)
    return [entry for value in values for entry in value]


def sentences(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """A batch for each sentence of `batch`, in their order, padded as they were."""
    return [_sentence(batch, number) for number in range(num_sentences(batch))]


def _sentence(value: Any, number: int) -> Any:
    if isinstance(value, dict):
        return {key: _sentence(part, number) for key, part in value.items()}
    return value[number : number + 1]


def longest(batch: dict[str, Any]) -> int:
    """The length of the longest sentence of a batch, in subwords: the widest of its tensors."""
    return max(
        longest(value) if isinstance(value, dict) else value.size(1)
        for value in batch.values()
        if isinstance(value, dict) or (isinstance(value, torch.Tensor) and value.dim() > 1)
    )


def num_subwords(batch: dict[str, Any]) -> int:
    """The number of subwords of a batch: where its fullest mask is true. Without masks, padding counts."""
    masks = list(_masks(batch))
    return max(int(mask.sum()) for mask in masks) if masks else num_sentences(batch) * longest(batch)


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
