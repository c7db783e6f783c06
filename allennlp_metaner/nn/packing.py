"""Sentences packed end to end: a row for each of their subwords, and none for padding."""

from functools import cached_property
from typing import Any, Optional

import torch
from torch.nn import functional

from allennlp_metaner.nn.dropout import attention


class Packing:
    """
    Where the subwords of some sentences are when the sentences are packed.

    # Parameters

    mask : `torch.BoolTensor`
        Which positions are subwords, shape `(num_sentences, length)`.
    """

    def __init__(self, mask: torch.Tensor) -> None:
        self._mask = mask
        self._heads: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @cached_property
    def lengths(self) -> list[int]:
        """The number of subwords of each sentence."""
        lengths: list[int] = self._mask.sum(dim=1).tolist()
        return lengths

    def pack(self, vectors: torch.Tensor) -> torch.Tensor:
        """From shape `(num_sentences, length, dim)` to `(num_subwords, dim)`."""
        return vectors[self._mask]

    def unpack(self, rows: torch.Tensor) -> torch.Tensor:
        """From shape `(num_subwords, dim)` to `(num_sentences, length, dim)`, with zeros as padding."""
        vectors = rows.new_zeros(*self._mask.shape, rows.size(-1))
        return vectors.index_put((self._mask,), rows)

    def select(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        rows : `torch.Tensor`
            Shape `(num_subwords, dim)`.
        positions : `torch.LongTensor`
            Positions in the sentences, shape `(num_sentences, num_positions)`.

        # Returns

        `torch.Tensor`
            Shape `(num_sentences, num_positions, dim)`.
        """
        chosen = self._rows.gather(1, positions)
        return rows.index_select(0, chosen.flatten()).view(*chosen.shape, -1)

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        num_heads: int,
        dropout: float,
    ) -> torch.Tensor:
        """
        Scaled dot-product attention of every sentence to itself.

        # Parameters

        query, key, value : `torch.Tensor`
            Shape `(num_subwords, dim)`.
        num_heads : `int`
        dropout : `float`
            The probability that an attention weight becomes zero.

        # Returns

        `torch.Tensor`
            Shape `(num_subwords, dim)`.
        """
        if num_heads not in self._heads:
            self._heads[num_heads] = self._indices(num_heads)
        there, back = self._heads[num_heads]
        heads = [
            _Split.apply(rows.view(len(rows) * num_heads, -1), there, back).view(
                len(self._mask), num_heads, self._mask.size(1), -1
            )
            for rows in (query, key, value)
        ]
        # Who gives dropout a generator looks for PyTorch's own function.
        attend = functional.scaled_dot_product_attention if dropout else attention
        attended = attend(heads[0], heads[1], heads[2], self._allowed, dropout)
        return _Merged.apply(attended.reshape(len(there), -1), back).view_as(query)

    @cached_property
    def _allowed(self) -> Optional[torch.Tensor]:
        return None if self._mask.all() else self._mask[:, None, None, :]

    @cached_property
    def _rows(self) -> torch.Tensor:
        """The row of each position; that of padding is of another one's."""
        return (self._mask.flatten().cumsum(0) - 1).clamp_(min=0).view_as(self._mask)

    def _indices(self, num_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each part of each vector is: by sentence, head and position, and by row and head."""
        heads = torch.arange(num_heads, device=self._mask.device)
        length = self._mask.size(1)
        there = self._rows[:, None, :] * num_heads + heads[:, None]
        sentence, position = self._mask.nonzero(as_tuple=True)
        back = (sentence * num_heads * length + position)[:, None] + heads * length
        return there.flatten(), back.flatten()


class _Split(torch.autograd.Function):
    """From rows to heads of padded sentences. Nothing may come back from the padding."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (back,) = ctx.saved_tensors
        return gradient.index_select(0, back), None, None


class _Merged(torch.autograd.Function):
    """From heads of padded sentences to rows."""

    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        ctx.num_heads = len(heads)
        return heads.index_select(0, back)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (back,) = ctx.saved_tensors
        heads = gradient.new_zeros(ctx.num_heads, gradient.size(1))
        return heads.index_copy_(0, back, gradient), None
