"""Going back: bit for bit, whatever happened."""

import random
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import torch

from allennlp_metaner.nn.parameters import preserved, trainable_parameters


class Network(torch.nn.Module):
    """Trainable and frozen weights, a buffer, a gradient, and modules in different modes."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = torch.nn.Linear(3, 3).requires_grad_(False)
        self.norm = torch.nn.BatchNorm1d(3)
        self.head = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 2))
        self.register_buffer("special", torch.tensor([float("nan"), -0.0, float("inf")]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.frozen(inputs)))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(3)
    network = Network()
    with torch.no_grad():
        # Values that arithmetic would not give back, such as adding and subtracting a step.
        network.head[1].weight.view(-1)[:3] = torch.tensor([-0.0, 1e-42, 3e38])
    network(torch.randn(4, 3)).sum().backward()
    network.head[1].bias.grad = None
    network.train()
    network.norm.eval()
    network.head[0].eval()
    return network


def state(network: torch.nn.Module) -> dict[str, Any]:
    """All that must come back. Tensors as bytes, so that NaN, -0.0 and denormals count."""
    tensors = {name: tensor.detach().numpy().tobytes() for name, tensor in network.state_dict().items()}
    gradients = {
        name: None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
        for name, p in network.named_parameters()
    }
    return {
        "tensors": tensors,
        "gradients": gradients,
        "modes": {name: module.training for name, module in network.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in network.named_parameters()},
        "python": random.getstate(),
        "numpy": str(numpy.random.get_state()),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def disturb(network: Network) -> None:
    """Everything but weights and gradients, which no part of the package touches."""
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3))
    network.special.fill_(0.0)  # type: ignore[operator]
    network.eval()
    random.random()
    numpy.random.rand()
    torch.manual_seed(0)


def test_everything_comes_back(network: Network) -> None:
    before = state(network)
    with preserved(network):
        disturb(network)
        changed = state(network)
    assert state(network) == before
    # What was to be restored had really changed.
    weights = {"gradients", "requires_grad"}
    assert all(changed[key] != before[key] for key in before if key not in weights)
    unchanged = {name for name, value in changed["tensors"].items() if value == before["tensors"][name]}
    assert unchanged == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_everything_comes_back_after_an_exception(network: Network, error: type[BaseException]) -> None:
    before = state(network)
    with pytest.raises(error), preserved(network):
        disturb(network)
        raise error
    assert state(network) == before


def test_everything_comes_back_when_a_generator_is_abandoned(network: Network) -> None:
    def disturbances() -> Iterator[None]:
        with preserved(network):
            for _ in range(3):
                disturb(network)
                yield

    before = state(network)
    generator = disturbances()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert state(network) == before


def test_nested(network: Network) -> None:
    before = state(network)
    with preserved(network):
        disturb(network)
        between = state(network)
        with preserved(network):
            disturb(network)
        assert state(network) == between
    assert state(network) == before


def test_weights_and_gradients_are_left_alone(network: Network) -> None:
    """Neither copied nor hidden: inside, they are the same objects with the same contents."""
    before = {name: (id(p), id(p.grad), p._version) for name, p in network.named_parameters()}
    with preserved(network):
        disturb(network)
        inside = {name: (id(p), id(p.grad), p._version) for name, p in network.named_parameters()}
    assert inside == before
    assert {name: (id(p), id(p.grad), p._version) for name, p in network.named_parameters()} == before


def test_a_model_without_trainable_parameters() -> None:
    network = torch.nn.Linear(2, 2).requires_grad_(False)
    with preserved(network):
        network.eval()
    assert network.training


def test_trainable_parameters(network: Network) -> None:
    names = [name for name, _ in trainable_parameters(network)]
    assert names == ["norm.weight", "norm.bias", "head.1.weight", "head.1.bias"]
