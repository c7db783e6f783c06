"""Packed sentences: the way there and back, and attention, against padded sentences."""

import pytest
import torch
from torch.nn import functional

from allennlp_metaner.nn.packing import Packing

LENGTHS = [[3], [4, 4], [5, 1, 3], [1, 6, 2, 6]]
DIM, NUM_HEADS = 8, 2


def mask_of(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_there_and_back(lengths: list[int]) -> None:
    packing = Packing(mask_of(lengths))
    vectors = random(len(lengths), max(lengths), DIM)
    rows = packing.pack(vectors)
    assert packing.lengths == lengths
    expected = [own[:length] for own, length in zip(vectors, lengths, strict=True)]
    assert torch.equal(rows, torch.cat(expected))
    back = packing.unpack(rows)
    assert torch.equal(back, vectors * mask_of(lengths).unsqueeze(2))
    # Gradients go the same way.
    back.square().sum().backward()
    assert vectors.grad is not None
    torch.testing.assert_close(vectors.grad, 2 * back)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_select(lengths: list[int]) -> None:
    packing = Packing(mask_of(lengths))
    vectors = random(len(lengths), max(lengths), DIM)
    positions = torch.tensor([[0, length - 1, length // 2] for length in lengths])
    found = packing.select(packing.pack(vectors), positions)
    for own, chosen, of_sentence in zip(found, positions, vectors, strict=True):
        assert torch.equal(own, of_sentence[chosen])


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_attention(lengths: list[int]) -> None:
    """Every sentence alone, written out, head by head; and the gradients."""
    num_rows = sum(lengths)
    query, key, value = (random(num_rows, DIM) for _ in range(3))
    weights = torch.randn(num_rows, DIM, dtype=torch.float64)
    found = Packing(mask_of(lengths)).attention(query, key, value, NUM_HEADS, 0.0)
    ours = torch.autograd.grad((found * weights).sum(), [query, key, value])
    parts = []
    for q, k, v in zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True):
        size = DIM // NUM_HEADS
        heads = []
        for n in range(0, DIM, size):
            scores = q[:, n : n + size] @ k[:, n : n + size].T / size**0.5
            heads.append(scores.softmax(dim=1) @ v[:, n : n + size])
        parts.append(torch.cat(heads, dim=1))
    expected = torch.cat(parts)
    torch.testing.assert_close(found, expected)
    theirs = torch.autograd.grad((expected * weights).sum(), [query, key, value])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_attention_with_dropout() -> None:
    """The mean over many draws, each of whose weights are zero or larger, is that without."""
    lengths = [3, 5]
    packing = Packing(mask_of(lengths))
    rows = torch.randn(sum(lengths), DIM, dtype=torch.float64)
    torch.manual_seed(0)
    draws = torch.stack([packing.attention(rows, rows, rows, NUM_HEADS, 0.3) for _ in range(4000)])
    assert not torch.equal(draws[0], draws[1])
    expected = packing.attention(rows, rows, rows, NUM_HEADS, 0.0)
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert ((draws.mean(dim=0) - expected).abs() <= 5 * error).all()


def test_padding_that_is_not_at_the_end() -> None:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    packing = Packing(mask)
    vectors = random(2, 3, DIM)
    assert torch.equal(packing.pack(vectors), torch.stack([vectors[0, 0], vectors[0, 2], *vectors[1, 1:]]))
    assert torch.equal(packing.unpack(packing.pack(vectors))[mask], vectors[mask])
    rows = packing.pack(vectors)
    alone = functional.scaled_dot_product_attention(*[rows[None, 2:]] * 3)[0]
    torch.testing.assert_close(packing.attention(rows, rows, rows, 1, 0.0)[2:], alone)
