"""Chunks at the same time, unless they share random numbers."""

import threading
from collections.abc import Callable

import pytest
import torch

from allennlp_metaner.meta.workers import Workers

CHUNKS = ["a", "b", "c", "d", "e", "f"]
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

    def work(self, chunk: str, seed: int) -> str:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        threading.Event().wait(0.05)
        with self._lock:
            self._now -= 1
        return f"{chunk}{seed}"


def drawing(crowd: Crowd) -> Callable[[str, int], tuple[str, float]]:
    """Work that takes a number from PyTorch's global generator."""

    def work(chunk: str, seed: int) -> tuple[str, float]:
        return crowd.work(chunk, seed), torch.rand(()).item()

    return work


@pytest.mark.parametrize("at_a_time", [1, 2, 3])
def test_results_in_order(model: torch.nn.Module, at_a_time: int) -> None:
    crowd, workers = Crowd(), Workers()
    expected = ["a3", "b1", "c4", "d15", "e9", "f2"]
    assert workers.map(crowd.work, CHUNKS, SEEDS, model, at_a_time) == expected
    assert crowd.most == at_a_time
    assert workers.map(crowd.work, [], [], model, at_a_time) == []


def test_the_first_chunk_is_alone(model: torch.nn.Module) -> None:
    """Once for every model, and once more in the other mode."""
    crowd, workers = Crowd(), Workers()
    workers.map(crowd.work, CHUNKS[:1], SEEDS[:1], model, 3)
    workers.map(crowd.work, CHUNKS[:3], SEEDS[:3], model, 3)
    assert crowd.most == 3
    evaluated = Crowd()
    workers.map(evaluated.work, CHUNKS[:3], SEEDS[:3], model.eval(), 3)
    assert evaluated.most == 2


def test_global_random_numbers(model: torch.nn.Module) -> None:
    """Each chunk has those of its seed, whatever the others do, and the caller's go on as if nothing was."""
    found = []
    for at_a_time in (1, 3):
        crowd, workers = Crowd(), Workers()
        torch.manual_seed(7)
        for _ in range(2):
            found.append(workers.map(drawing(crowd), CHUNKS, SEEDS, model, at_a_time))
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
    workers.map(crowd.work, CHUNKS, SEEDS, model, 3)
    assert crowd.most == 1


def test_threads_are_shared_out_and_given_back(model: torch.nn.Module) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        workers = Workers()
        for at_a_time, own in ((1, 6), (2, 3), (3, 2), (12, 1)):
            found = workers.map(lambda *_: torch.get_num_threads(), CHUNKS, SEEDS, model, at_a_time)
            assert found == [own] * len(CHUNKS)
        with pytest.raises(ZeroDivisionError):
            workers.map(lambda *_: 1 / 0, CHUNKS, SEEDS, model, 3)
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)
