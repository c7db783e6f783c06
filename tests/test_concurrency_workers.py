"""Microbatches at the same time, unless they share random numbers."""

import threading
from collections.abc import Callable

import pytest
import torch

from allennlp_metaner.concurrency import Workers

MICROBATCHES = ["a", "b", "c", "d", "e", "f"]
SEEDS = [3, 1, 4, 15, 9, 2]


@pytest.fixture
def model() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


class Crowd:
    """How many are at work at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def work(self, microbatch: str, seed: int) -> str:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        threading.Event().wait(0.05)
        with self._lock:
            self._now -= 1
        return f"{microbatch}{seed}"


def drawing(crowd: Crowd) -> Callable[[str, int], tuple[str, float]]:
    """Work that takes a number from PyTorch's global generator."""

    def work(microbatch: str, seed: int) -> tuple[str, float]:
        return crowd.work(microbatch, seed), torch.rand(()).item()

    return work


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_results_in_order(model: torch.nn.Module, num_workers: int) -> None:
    crowd, workers = Crowd(), Workers()
    expected = ["a3", "b1", "c4", "d15", "e9", "f2"]
    assert workers.map(crowd.work, MICROBATCHES, SEEDS, model, num_workers) == expected
    assert crowd.most == num_workers
    assert workers.map(crowd.work, [], [], model, num_workers) == []


def test_the_first_microbatch_is_alone(model: torch.nn.Module) -> None:
    """Once for every model, and once more in the other mode."""
    crowd, workers = Crowd(), Workers()
    workers.map(crowd.work, MICROBATCHES[:1], SEEDS[:1], model, 3)
    workers.map(crowd.work, MICROBATCHES[:3], SEEDS[:3], model, 3)
    assert crowd.most == 3
    evaluated = Crowd()
    workers.map(evaluated.work, MICROBATCHES[:3], SEEDS[:3], model.eval(), 3)
    assert evaluated.most == 2


def test_global_random_numbers(model: torch.nn.Module) -> None:
    """Each has those of its seed, whatever the others do, and the caller's go on as if nothing was."""
    found = []
    for num_workers in (1, 3):
        crowd, workers = Crowd(), Workers()
        torch.manual_seed(7)
        for _ in range(2):
            found.append(workers.map(drawing(crowd), MICROBATCHES, SEEDS, model, num_workers))
        assert crowd.most == 1
        following = torch.rand(3)
        torch.manual_seed(7)
        assert torch.equal(following, torch.rand(3))
    assert all(results == found[0] for results in found)
    for seed, (_, number) in zip(SEEDS, found[0], strict=True):
        torch.manual_seed(seed)
        assert number == torch.rand(()).item()


def test_hooks(model: torch.nn.Module) -> None:
    model.register_forward_hook(lambda *_: None)
    crowd, workers = Crowd(), Workers()
    workers.map(crowd.work, MICROBATCHES, SEEDS, model, 3)
    assert crowd.most == 1


def test_threads_are_shared_out_and_given_back(
    model: torch.nn.Module, threads: Callable[[int], None]
) -> None:
    threads(6)
    workers = Workers()
    for num_workers, own in ((1, 6), (2, 3), (3, 2), (12, 1)):
        found = workers.map(lambda *_: torch.get_num_threads(), MICROBATCHES, SEEDS, model, num_workers)
        assert found == [own] * len(MICROBATCHES)
    with pytest.raises(ZeroDivisionError):
        workers.map(lambda *_: 1 / 0, MICROBATCHES, SEEDS, model, 3)
    assert torch.get_num_threads() == 6
