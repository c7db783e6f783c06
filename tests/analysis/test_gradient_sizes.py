"""Sizes of gradients: against NumPy's quantiles, and against the formulas of the optimizers' first steps."""

from functools import partial

import numpy as np
import pytest
import torch
from allennlp.training.optimizers import AdamOptimizer, SgdOptimizer

from allennlp_metaner.analysis.gradient_sizes import GradientSizes, first_steps, half_step_size
from allennlp_metaner.nn.bert_adam import BertAdam


def test_quantiles_and_shares() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice([-1, 1], 5000) * 10 ** rng.uniform(-9, -1, 5000)
    values[:500] = 0
    sizes = GradientSizes()
    sizes.add([torch.tensor(values[:2000]).view(40, 50), torch.tensor(values[2000:])])
    assert (sizes.total, sizes.zeros) == (5000, 500)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        expected = np.quantile(np.abs(values), share, method="inverted_cdf")
        assert sizes.quantile(share) == pytest.approx(expected, rel=0.024)
    for size in (1e-7, 1e-4, 3.16e-3):
        assert sizes.share_from(size) == pytest.approx((np.abs(values) >= size).mean(), abs=0.005)


def test_ends_of_the_range() -> None:
    sizes = GradientSizes()
    assert sizes.quantile(0.5) == sizes.share_from(1e-3) == 0
    sizes.add([torch.tensor([1e-30, 1e9, -1e9, 1e9])])
    assert (sizes.zeros, sizes.total) == (1, 4)
    assert sizes.quantile(1.0) == pytest.approx(1e5, rel=0.024)


@pytest.mark.parametrize(
    "optimizer, eps",
    [
        (partial(AdamOptimizer, lr=1e-5), 1e-8),
        (partial(AdamOptimizer, lr=3.16e-5, eps=3.16e-5), 3.16e-5),
        # Without bias correction, eps counts 1 / sqrt(1 - beta2) times. Zero weights do not decay.
        (partial(BertAdam, lr=1e-5), 1e-6 * 1000**0.5),
    ],
)
def test_first_step_of_adam(optimizer: partial[torch.optim.Optimizer], eps: float) -> None:
    sizes = [1e-10, 1e-8, 1e-6, 3.16e-5, 1e-2]
    expected = [size / (size + eps) * (1 + eps) for size in sizes]
    assert first_steps(optimizer, sizes) == pytest.approx(expected, rel=1e-6)
    assert half_step_size(optimizer) == pytest.approx(eps, rel=2e-3)


def test_first_step_of_plain_descent() -> None:
    optimizer = partial(SgdOptimizer, lr=0.1)
    assert first_steps(optimizer, [1e-6, 0.25]) == pytest.approx([1e-6, 0.25])
    assert half_step_size(optimizer) == pytest.approx(0.5, rel=2e-3)
