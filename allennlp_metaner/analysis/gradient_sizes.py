"""How large the gradients of an inner step are, and what its optimizer makes of gradients of that size."""

from collections.abc import Callable, Iterable, Sequence

import torch

# The absolute values are counted in this many bins a decade, so quantiles are exact within 2.4 per cent.
_BINS_A_DECADE = 100
_DECADES = (-15, 5)
_NUM_BINS = _BINS_A_DECADE * (_DECADES[1] - _DECADES[0])

OptimizerMaker = Callable[[list[tuple[str, torch.nn.Parameter]]], torch.optim.Optimizer]
"""Makes an optimizer with a fresh state for named parameters."""


class GradientSizes:
    """
    Counts the absolute values of gradient entries, which are too many to be kept. Those below 1e-15 count as
    zero, those above 1e5 as 1e5.
    """

    def __init__(self) -> None:
        self._counts = torch.zeros(_NUM_BINS, dtype=torch.float64)
        self.zeros = 0
        self.total = 0

    def add(self, gradients: Iterable[torch.Tensor]) -> None:
        """Counts every entry of some gradients, of any shape."""
        for gradient in gradients:
            sizes = gradient.detach().abs().flatten().cpu()
            exponents = sizes.log10().clamp_max(_DECADES[1] - 0.5 / _BINS_A_DECADE)
            counted = exponents[exponents >= _DECADES[0]]
            self._counts += torch.histc(counted.float(), _NUM_BINS, *_DECADES)
            self.zeros += len(sizes) - len(counted)
            self.total += len(sizes)

    def quantile(self, share: float) -> float:
        """The absolute value that this share of all entries is below, from 0 to 1."""
        below = share * self.total - self.zeros
        if below <= 0:
            return 0.0
        position = int(torch.searchsorted(self._counts.cumsum(0), torch.tensor(below).double()))
        return _middle(min(position, _NUM_BINS - 1))

    def share_from(self, size: float) -> float:
        """The share of all entries whose absolute value is at least `size`."""
        from_here = [count for bin_, count in enumerate(self._counts.tolist()) if _middle(bin_) >= size]
        return sum(from_here) / max(self.total, 1)


def first_steps(make_optimizer: OptimizerMaker, sizes: Sequence[float]) -> list[float]:
    """
    What the optimizer's first step from a fresh state makes of gradients of these sizes: how far a weight
    moves, as a share of how far a gradient of 1 moves it. This asks the optimizer itself, so it holds for
    any.

    # Parameters

    make_optimizer : `Callable[[list[tuple[str, torch.nn.Parameter]]], torch.optim.Optimizer]`
    sizes : `Sequence[float]`

    # Returns

    `list[float]`
    """
    # Each in a tensor of its own, since an optimizer may clip a tensor's gradient, and at zero, since it may
    # decay weights.
    weights = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in (*sizes, 1.0)]
    optimizer = make_optimizer([(f"weight_{number}", weight) for number, weight in enumerate(weights)])
    for weight, size in zip(weights, (*sizes, 1.0), strict=True):
        weight.grad = torch.tensor([size], dtype=torch.float64)
    optimizer.step()
    *moved, full = (abs(weight.item()) for weight in weights)
    return [step / full for step in moved]


def half_step_size(make_optimizer: OptimizerMaker) -> float:
    """
    The size of a gradient that moves a weight half as far as a gradient of 1 does. For Adam's first step this
    is its eps: larger gradients give a step of the whole learning rate, whose sign alone they decide.
    """
    low, high = (10.0**exponent for exponent in _DECADES)
    high = min(high, 1.0)
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        if first_steps(make_optimizer, [middle])[0] < 0.5:
            low = middle
        else:
            high = middle
    return high


def _middle(bin_: int) -> float:
    return float(10 ** (_DECADES[0] + (bin_ + 0.5) / _BINS_A_DECADE))
