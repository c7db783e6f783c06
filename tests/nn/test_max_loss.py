"""Eq. 3 and 13 by hand."""

import math

import pytest
import torch

from allennlp_metaner.nn.max_loss import max_loss, token_losses

# Of three sentences: three words, one word, two words.
LOSSES = [[0.5, 2.0, 0.8], [0.3], [1.0, 0.2]]


def padded(width: int = 3, padding: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [row + [padding] * (width - len(row)) for row in LOSSES]
    mask = [[i < len(row) for i in range(width)] for row in LOSSES]
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(mask)


@pytest.mark.parametrize("weight", [0.0, 2.0, 0.5])
def test_sentence_reduction(weight: float) -> None:
    """The mean of each sentence, plus lambda times its maximum; sentences are added up."""
    expected = (3.3 / 3 + weight * 2.0) + (0.3 + weight * 0.3) + (1.2 / 2 + weight * 1.0)
    assert max_loss(*padded(), weight).item() == pytest.approx(expected, rel=1e-14)
    assert max_loss(*padded(), weight, "sentence").item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("weight", [0.0, 2.0, 0.5])
def test_token_reduction(weight: float) -> None:
    """The mean of all tokens, plus lambda times the mean of the sentences' maxima."""
    expected = (3.3 + 0.3 + 1.2) / 6 + weight * (2.0 + 0.3 + 1.0) / 3
    assert max_loss(*padded(), weight, "token").item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_no_reduction(weight: float) -> None:
    """Each sentence by itself, which is what both reductions make of it alone."""
    losses, mask = padded()
    apart = max_loss(losses, mask, weight, "none")
    for row, found in enumerate(apart.tolist()):
        for reduction in ("sentence", "token"):
            alone = max_loss(losses[row : row + 1], mask[row : row + 1], weight, reduction)
            assert found == pytest.approx(alone.item(), rel=1e-14)


@pytest.mark.parametrize("reduction", ["sentence", "token"])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_padding_does_not_matter(reduction: str, weight: float) -> None:
    short = max_loss(*padded(3), weight, reduction)
    assert max_loss(*padded(50), weight, reduction).item() == pytest.approx(short.item(), rel=1e-14)


def test_sentences_add_up() -> None:
    """A batch is the sum of its sentences, each on its own."""
    losses, mask = padded()
    alone = [max_loss(losses[i : i + 1], mask[i : i + 1], 2.0).item() for i in range(3)]
    assert max_loss(losses, mask, 2.0).item() == pytest.approx(sum(alone), rel=1e-14)


@pytest.mark.parametrize("reduction", ["sentence", "token"])
def test_no_words_count_nothing(reduction: str) -> None:
    losses, mask = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.bool)
    assert max_loss(losses, mask, 2.0, reduction).item() == 0.0


def gradient(weight: float, reduction: str = "sentence") -> list[list[float]]:
    losses, mask = padded()
    losses.requires_grad_()
    max_loss(losses, mask, weight, reduction).backward()
    assert losses.grad is not None
    return [row[: len(true)] for row, true in zip(losses.grad.tolist(), LOSSES, strict=True)]


@pytest.mark.parametrize(
    ("reduction", "means", "share"),
    [
        ("sentence", [1 / 3, 1.0, 1 / 2], 2.0),
        ("token", [1 / 6, 1 / 6, 1 / 6], 2.0 / 3),
    ],
)
def test_the_maximum_moves_the_worst_word_only(reduction: str, means: list[float], share: float) -> None:
    worst = [1, 0, 0]
    expected = [
        [mean + (share if i == position else 0.0) for i in range(len(row))]
        for row, mean, position in zip(LOSSES, means, worst, strict=True)
    ]
    for found, row in zip(gradient(2.0, reduction), expected, strict=True):
        assert found == pytest.approx(row, rel=1e-14)


def test_without_max_loss_all_words_move_alike() -> None:
    for found, row in zip(gradient(0.0), LOSSES, strict=True):
        assert found == pytest.approx([1 / len(row)] * len(row), rel=1e-14)


def test_token_losses() -> None:
    """-log softmax, written out; 0 where masked, whatever the logits and targets are there."""
    logits = [[[1.0, 2.0, -1.0], [0.5, 0.5, 3.0]], [[0.0, -2.0, 1.0], [9.0, 9.0, 9.0]]]
    targets = [[1, 0], [2, 2]]
    mask = torch.tensor([[True, True], [True, False]])
    found = token_losses(torch.tensor(logits, dtype=torch.float64), torch.tensor(targets), mask)
    for i, j in ((0, 0), (0, 1), (1, 0)):
        row = logits[i][j]
        expected = math.log(sum(map(math.exp, row))) - row[targets[i][j]]
        assert found[i, j].item() == pytest.approx(expected, rel=1e-14)
    assert found[1, 1].item() == 0.0


def test_masked_words_get_no_gradient() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    losses = token_losses(logits, torch.zeros(2, 3, dtype=torch.long), mask)
    max_loss(losses, mask, 2.0).backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum(dim=2) > 0
    assert torch.equal(moved, mask)


def test_very_wrong_words_stay_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss = max_loss(token_losses(logits, torch.tensor([[1, 1]]), mask), mask, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(1e4 + 4e4)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
