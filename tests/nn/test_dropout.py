"""Dropout with few random bits: its rate, its mean, its gradient, and where it draws from."""

from collections.abc import Callable
from typing import Any, Optional

import pytest
import torch
from torch.nn import functional

from allennlp_metaner.nn.dropout import attention, dropout

SIZE = 400_000


@pytest.fixture(autouse=True)
def one_thread(threads: Callable[[int], None]) -> None:
    """Thousands of small draws are slow in several."""
    threads(1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_rate_and_mean(p: float, dtype: torch.dtype) -> None:
    """Within 4 standard errors; what is kept is larger accordingly."""
    found = dropout(torch.full((SIZE,), 2.0, dtype=dtype), p, generator=generator(0))
    assert found.dtype == dtype
    rate = (found == 0).double().mean().item()
    error = (p * (1 - p) / SIZE) ** 0.5
    # Rates are rounded to 16 bits.
    assert abs(rate - p) <= 4 * error + 2**-17
    kept = found[found != 0].double()
    assert kept.min() == kept.max()
    # The mean is exact, since the factor is that of the rounded rate.
    exact = 1 - round(p * 2**16) / 2**16
    assert kept[0].item() * exact == pytest.approx(2.0, rel=1e-2 if dtype == torch.bfloat16 else 1e-6)
    assert exact == pytest.approx(1 - p, abs=2**-17)


@pytest.mark.parametrize("p", [0.0, 1e-9, 1e-6, 7e-6])
def test_rates_that_round_to_nothing(p: float) -> None:
    inputs = torch.randn(1000)
    assert torch.equal(dropout(inputs, p), inputs)


@pytest.mark.parametrize("p", [1.0, 1 - 1e-9, 1 - 1e-6])
def test_rates_that_round_to_everything(p: float) -> None:
    found = dropout(torch.randn(1000), p)
    assert torch.equal(found, torch.zeros(1000))


def test_not_in_training() -> None:
    inputs = torch.randn(100)
    assert torch.equal(dropout(inputs, 0.5, training=False), inputs)
    assert torch.equal(dropout(inputs, 0.5, False), inputs)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 3, 5), (0, 4)], ids=str)
def test_any_shape(shape: tuple[int, ...]) -> None:
    """Also where random bits do not come out even."""
    found = dropout(torch.ones(shape), 0.5, generator=generator(0))
    assert found.shape == shape
    assert set(found.flatten().tolist()) <= {0.0, 2.0}


def test_inputs_of_any_layout() -> None:
    inputs = torch.randn(30, 40)
    expected = dropout(inputs.t().contiguous(), 0.5, generator=generator(0))
    assert torch.equal(dropout(inputs.t(), 0.5, generator=generator(0)), expected)


def test_inputs_stay() -> None:
    inputs = torch.randn(100)
    before = inputs.clone()
    assert not torch.equal(dropout(inputs, 0.5, inplace=True), before)
    assert torch.equal(inputs, before)


def test_gradient_has_the_same_mask() -> None:
    inputs = torch.randn(50, 50, dtype=torch.float64, requires_grad=True)
    found = dropout(inputs, 0.3, generator=generator(0))
    (gradient,) = torch.autograd.grad(found.sum(), inputs)
    torch.testing.assert_close(gradient * inputs, found, rtol=1e-12, atol=0.0)
    assert 0.2 < (gradient == 0).double().mean() < 0.4


def test_generator() -> None:
    """The same seed gives the same mask, another one another; PyTorch's own random numbers are left alone."""
    inputs = torch.ones(1000)
    state = torch.get_rng_state()
    first, again, other = (dropout(inputs, 0.5, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    drawing = generator(0)
    one, two = (dropout(inputs, 0.5, generator=drawing) for _ in range(2))
    assert torch.equal(one, first)
    assert not torch.equal(two, one)


def test_without_a_generator_pytorchs_own_is_used() -> None:
    inputs = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(inputs), dropout(inputs)
    torch.manual_seed(3)
    assert torch.equal(dropout(inputs), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 8])
def test_neighbours_are_independent(distance: int) -> None:
    """Four elements share the 64 bits of one draw."""
    dropped = (dropout(torch.ones(SIZE), 0.3, generator=generator(0)) == 0).double()
    both = (dropped[distance:] * dropped[:-distance]).mean().item()
    assert abs(both - 0.3**2) <= 5 * (0.09 * 0.91 / SIZE) ** 0.5
    # And the four do not differ in their rates.
    for first in range(4):
        assert abs(dropped[first::4].mean().item() - 0.3) <= 4 * (0.21 / (SIZE / 4)) ** 0.5


MASKS = ["none", "numbers", "booleans"]


def operands(mask: str, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    """Query, key, value and mask of two sentences with three heads; the second one is shorter."""
    drawing = generator(0)
    query, key, value = (torch.randn(2, 3, 5, 4, dtype=dtype, generator=drawing) for _ in range(3))
    seen = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None, :]
    numbers = torch.zeros(2, 1, 1, 5, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return query, key, value, {"none": None, "numbers": numbers, "booleans": seen}[mask]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_without_dropout(mask: str, scale: Optional[float]) -> None:
    given = operands(mask)
    expected = functional.scaled_dot_product_attention(*given, scale=scale)
    torch.testing.assert_close(attention(*given, scale=scale), expected, rtol=1e-12, atol=1e-12)
    # A rate that rounds to 0 takes the way of dropout.
    found = attention(*given, dropout_p=1e-9, scale=scale)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dropout_p", [0.0, 1e-9])
def test_causal_attention(dropout_p: float) -> None:
    query, key, value, _ = operands("none")
    expected = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    found = attention(query, key, value, dropout_p=dropout_p, is_causal=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mask", MASKS)
def test_expectation_of_attention(mask: str) -> None:
    """The mean of many draws is the result without dropout, within 5 standard errors."""
    given = operands(mask)
    expected = functional.scaled_dot_product_attention(*given)
    drawing = generator(0)
    draws = torch.stack([attention(*given, dropout_p=0.3, generator=drawing) for _ in range(1000)])
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert (error > 0).all()
    assert ((draws.mean(dim=0) - expected).abs() <= 5 * error).all()


@pytest.mark.parametrize("mask", MASKS)
def test_attention_has_the_distribution_of_pytorchs_own(mask: str) -> None:
    """Dropout of the weights after the softmax, so their sum is not 1."""
    query, key, value, given = operands(mask)
    ones, drawing = torch.ones_like(value), generator(0)
    torch.manual_seed(0)
    ours = torch.stack(
        [attention(query, key, ones, given, dropout_p=0.3, generator=drawing) for _ in range(1000)]
    )
    theirs = torch.stack(
        [functional.scaled_dot_product_attention(query, key, ones, given, 0.3) for _ in range(1000)]
    )
    torch.testing.assert_close(ours.var(dim=0).mean(), theirs.var(dim=0).mean(), rtol=0.05, atol=0.0)


@pytest.mark.parametrize("mask", MASKS)
def test_generator_of_attention(mask: str) -> None:
    given = operands(mask)
    state = torch.get_rng_state()
    first, again, other = (attention(*given, dropout_p=0.3, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mask", MASKS)
def test_gradient_of_attention(mask: str) -> None:
    """Through the same mask as the result."""
    *inputs, given = operands(mask)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        return attention(*inputs, given, dropout_p=0.3, generator=generator(0))

    assert torch.autograd.gradcheck(run, [tensor.requires_grad_() for tensor in inputs])
