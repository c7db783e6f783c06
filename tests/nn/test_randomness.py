"""Random numbers of tasks: the same in any company."""

from collections.abc import Sequence

import pytest
import torch

from allennlp_metaner.nn import randomness
from allennlp_metaner.nn.randomness import TaskGenerators, hashed
from allennlp_metaner.nn.task_rows import NotSeparableError, TaskRows

CPU = torch.device("cpu")
SENTENCES = [2, 1, 3]
PACKED = [9, 4, 12]
WIDTHS = [6, 4, 5]
SEEDS = [11, 22, 33]
P = 0.3


@pytest.fixture(params=["drawn", "hashed"], autouse=True)
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All tests run with random numbers as on CPUs, and as on GPUs."""
    monkeypatch.setattr(randomness, "hashes", lambda device: request.param == "hashed")
    return str(request.param)


def of_tasks(tasks: Sequence[int]) -> TaskGenerators:
    of = [[values[task] for task in tasks] for values in (SENTENCES, PACKED, WIDTHS, SEEDS)]
    return TaskGenerators(of[3], TaskRows(of[0], [of[1]], of[2]), CPU)


def draws(tasks: Sequence[int]) -> list[list[torch.Tensor]]:
    """What three passes through three kinds of layers keep of each task, without padding."""
    generators = of_tasks(tasks)
    width = max(WIDTHS[task] for task in tasks)
    sentences, packed = sum(SENTENCES[task] for task in tasks), sum(PACKED[task] for task in tasks)
    found: list[list[torch.Tensor]] = [[] for _ in tasks]
    for _ in range(3):
        rows = generators.kept_elements(torch.zeros(packed, 8), P)
        padded = generators.kept_elements(torch.zeros(sentences, width, 8), P)
        attention = generators.kept_elements(torch.zeros(sentences, 2, width, width), P)
        assert rows.shape == (packed, 8)
        assert padded.shape == (sentences, width, 8)
        assert attention.shape == (sentences, 2, width, width)
        of_task = zip(
            rows.split([PACKED[task] for task in tasks]),
            padded.split([SENTENCES[task] for task in tasks]),
            attention.split([SENTENCES[task] for task in tasks]),
            strict=True,
        )
        for position, (one, two, three) in enumerate(of_task):
            own = WIDTHS[tasks[position]]
            found[position] += [one, two[:, :own], three[:, :, :own, :own]]
    return found


def test_company_makes_no_difference() -> None:
    alone = [draws([task])[0] for task in range(3)]
    for tasks in ([0, 1, 2], [2, 0], [1, 2], [2, 1, 0]):
        for task, found in zip(tasks, draws(tasks), strict=True):
            assert all(map(torch.equal, found, alone[task]))


def test_every_draw_of_every_task_is_another() -> None:
    first, second, _ = draws([0, 1, 2])
    assert not torch.equal(first[0], first[3])
    assert not torch.equal(first[0][:4], second[0])
    generators = TaskGenerators([7, 7], TaskRows([1, 1]), CPU)
    one, other = generators.kept_elements(torch.zeros(2, 50), P)
    assert torch.equal(one, other)


def test_rate() -> None:
    kept = of_tasks([0, 1, 2]).kept_elements(torch.zeros(25, 4000), P)
    assert kept.dtype == torch.bool
    assert kept.float().mean().item() == pytest.approx(1 - P, abs=0.01)


def test_numbers_of_a_single_task_have_any_shape() -> None:
    for shape in ((), (5,), (3, 4), (2, 3, 4), (2, 3, 4, 4), (2, 3, 4, 5)):
        assert of_tasks([0]).kept_elements(torch.zeros(shape), P).shape == shape


def test_what_cannot_be_told_apart(source: str) -> None:
    with pytest.raises(NotSeparableError):
        of_tasks([0, 1]).kept_elements(torch.zeros(7, 8), P)
    if source == "hashed":
        return  # Which needs no widths.
    without_widths = TaskGenerators([1, 2], TaskRows([1, 1]), CPU)
    with pytest.raises(NotSeparableError):
        without_widths.kept_elements(torch.zeros(2, 2, 4, 4), P)


def test_pytorchs_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    draws([0, 1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(600, 64), (21, 30, 64), (15, 4, 25, 25)], ids=str)
def test_neighbors_have_nothing_in_common(shape: tuple[int, ...]) -> None:
    """Neither in any dimension, nor from draw to draw, nor from task to task."""
    generators = TaskGenerators([1, 2, 3], TaskRows([shape[0] // 3] * 3, (), [25] * 3), CPU)
    one, other = (generators.kept_elements(torch.zeros(shape), P).double() - (1 - P) for _ in range(2))
    number = one.numel()
    limit = 5 * P * (1 - P) / number**0.5
    assert abs(one.mean()) <= 5 * (P * (1 - P) / number) ** 0.5
    assert abs((one * other).mean()) <= limit
    for dimension in range(len(shape)):
        shifted = one.roll(1, dimension)
        assert abs((one * shifted).mean()) <= limit
    # The sums of rows and of columns vary as those of independent numbers do.
    for dimension in range(len(shape)):
        sums = one.sum(dimension)
        expected = P * (1 - P) * shape[dimension]
        assert sums.var().item() == pytest.approx(expected, rel=6 * (2 / sums.numel()) ** 0.5)


def test_hashed_numbers_use_all_bits() -> None:
    found = hashed(torch.arange(1 << 14))
    assert len(found.unique()) == 1 << 14
    for bit in range(40, 64):
        ones = ((found >> bit) & 1).double().mean().item()
        assert ones == pytest.approx(0.5, abs=0.02)
