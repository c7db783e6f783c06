"""What cores, memory and model allow."""

from collections.abc import Callable

import pytest
import torch

from allennlp_metaner.meta import scheduling
from allennlp_metaner.meta.scheduling import (
    EFFICIENT_SUBWORDS,
    MEMORY_SHARE,
    Limits,
    limits_of,
)
from allennlp_metaner.nn.memory import memory_of
from allennlp_metaner.nn.microbatches import microbatches_of
from allennlp_metaner.nn.parameters import NamedParameters, trainable_parameters

GIB = 2**30
COPY = 4 * (300 * 200 + 200)
BYTES_OF_A_SUBWORD = 1 + 4 * (300 + 200)


@pytest.fixture
def model() -> torch.nn.Module:
    """60,200 trainable parameters, and as many that are frozen."""
    model = torch.nn.Sequential(torch.nn.Linear(200, 300), torch.nn.Linear(300, 200))
    model[0].requires_grad_(False)
    return model


@pytest.fixture
def limits(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> Callable[..., Limits]:
    """The limits on a machine with so many cores, and so much memory for an inner loop."""

    def limits(cores: int, memory: int, **settings: int) -> Limits:
        threads(cores)
        monkeypatch.setattr(scheduling, "memory_of", lambda device: MEMORY_SHARE * memory)
        return limits_of(model, trainable_parameters(model), **settings)

    return limits


def test_plenty_of_memory(limits: Callable[..., Limits]) -> None:
    for cores in (1, 2, 6):
        assert limits(cores, cores * 10 * COPY) == Limits(
            num_workers=cores, group_size=5, microbatch_size=EFFICIENT_SUBWORDS, keeps_gradients=True
        )


def test_little_memory(limits: Callable[..., Limits]) -> None:
    """First groups become small, then gradients are computed again, then there are fewer workers."""
    assert limits(2, 4 * COPY)[:2] == (2, 1)
    assert limits(2, 4 * COPY).keeps_gradients
    assert limits(2, 4 * COPY - 1, microbatch_size=8) == Limits(2, 1, 8, False)
    assert limits(2, 2 * COPY - 1)[:2] == (1, 1)
    assert limits(2, 1) == Limits(1, 1, 1, False)
    assert limits(1, 100 * BYTES_OF_A_SUBWORD).microbatch_size == 100


def test_what_is_given(limits: Callable[..., Limits]) -> None:
    assert limits(2, 1, num_workers=3, group_size=4, microbatch_size=5) == Limits(3, 4, 5, False)
    assert limits(2, 8 * COPY, num_workers=1).group_size == 4


def test_stacked_weights(limits: Callable[..., Limits], monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker; half of the memory is for weights, but for what a step needs, and half for activations."""
    monkeypatch.setattr(scheduling, "STEP_BYTES", COPY)
    memory = 2 * (scheduling.STEP_COPIES * COPY + 3 * 5 * COPY)
    found = limits(4, memory, batched=3)
    assert found[:2] == (1, 5)
    assert found.microbatch_size == int(memory // (4 * scheduling.ACTIVATIONS * BYTES_OF_A_SUBWORD))
    assert limits(4, memory - 1, batched=3).group_size == 4
    assert limits(4, 1, batched=3) == Limits(1, 1, 1, True)
    assert limits(4, memory, batched=3, group_size=9, microbatch_size=7)[:3] == (1, 9, 7)


def test_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free, and what PyTorch keeps for its next tensors."""
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * GIB)
    assert scheduling.available_memory(gpu) == 12 * GIB * 9 // 10


def test_the_default_encoder_is_not_slow(limits: Callable[..., Limits]) -> None:
    """Multilingual BERT has 9 trainable layers of 243 MiB in all; two cores and 8 GiB are not much."""
    copy = 243 * 2**20
    parameters: NamedParameters = [("all", torch.nn.Parameter(torch.empty(copy // 4, device="meta")))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "memory_of", lambda device: 8 * GIB)
        patch.setattr(torch, "get_num_threads", lambda: 2)
        cpu = torch.device("cpu")
        patch.setattr(torch.nn.Parameter, "device", property(lambda self: cpu), raising=False)
        found = limits_of(torch.nn.Linear(768, 3072), parameters)
    assert found == Limits(2, 2, EFFICIENT_SUBWORDS, True)


def test_memory_of_this_machine() -> None:
    assert 2**28 < memory_of(torch.device("cpu")) < 2**50


def test_microbatches_of_several_cores() -> None:
    batches = [{"mask": torch.ones(1, 10, dtype=torch.bool)} for _ in range(12)]
    assert len(microbatches_of(batches, batches, 50, 1)) == 3
    assert len(microbatches_of(batches, batches, 50, 2)) == 4
    assert len(microbatches_of(batches, batches, 50, 5)) == 5
    # As few as there are tasks.
    assert len(microbatches_of(batches, batches, 50, 64)) == 12
    assert microbatches_of(batches, batches, 1000, 64) == [list(range(12))]
    assert microbatches_of([], [], 50, 2) == []
