"""The optimiser of the published code, against its formula."""

import copy
from typing import Any

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import Optimizer

from allennlp_metaner.nn.bert_adam import BertAdam

NamedParameters = list[tuple[str, torch.nn.Parameter]]


@pytest.fixture
def parameters() -> NamedParameters:
    """Two that decay and three that do not, under the names that a BERT gives them."""
    torch.manual_seed(0)
    shapes = {
        "encoder.layer.0.output.dense.weight": (3, 4),
        "encoder.layer.0.output.dense.bias": (4,),
        "encoder.layer.0.output.LayerNorm.weight": (4,),
        "encoder.layer.0.output.LayerNorm.bias": (4,),
        "classifier.weight": (2, 4),
    }
    return [
        (name, torch.nn.Parameter(torch.randn(shape, dtype=torch.float64))) for name, shape in shapes.items()
    ]


def gradients(parameters: NamedParameters, step: int) -> list[torch.Tensor]:
    """Some longer than 1, some shorter."""
    generator = torch.Generator().manual_seed(step)
    return [
        torch.randn(p.shape, dtype=p.dtype, generator=generator) * scale
        for (_, p), scale in zip(parameters, (5.0, 0.1, 0.01, 3.0, 1.0), strict=True)
    ]


def set_gradients(parameters: NamedParameters, step: int) -> None:
    for (_, parameter), gradient in zip(parameters, gradients(parameters, step), strict=True):
        parameter.grad = gradient


def reference(parameters: NamedParameters, num_steps: int, lr: float, max_norm: float) -> list[torch.Tensor]:
    """Number by number, in plain Python."""
    results = []
    for position, (name, parameter) in enumerate(parameters):
        weights = parameter.detach().flatten().tolist()
        first, second = [0.0] * len(weights), [0.0] * len(weights)
        decay = 0.01 if name.endswith("dense.weight") or name == "classifier.weight" else 0.0
        for step in range(num_steps):
            gradient = gradients(parameters, step)[position].flatten().tolist()
            norm = sum(g * g for g in gradient) ** 0.5
            factor = min(1.0, max_norm / (norm + 1e-6)) if max_norm > 0 else 1.0
            for i, g in enumerate(gradient):
                first[i] = 0.9 * first[i] + 0.1 * g * factor
                second[i] = 0.999 * second[i] + 0.001 * (g * factor) ** 2
                update = first[i] / (second[i] ** 0.5 + 1e-6) + decay * weights[i]
                weights[i] -= lr * update
        results.append(torch.tensor(weights, dtype=torch.float64).view_as(parameter))
    return results


@pytest.mark.parametrize("max_norm", [1.0, 0.05, 0.0])
def test_equals_the_formula(parameters: NamedParameters, max_norm: float) -> None:
    expected = reference(parameters, num_steps=5, lr=0.01, max_norm=max_norm)
    optimizer = BertAdam(parameters, lr=0.01, max_grad_norm=max_norm)
    for step in range(5):
        set_gradients(parameters, step)
        optimizer.step()
    for (name, parameter), value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-12, atol=0.0, msg=name)


def test_gradients_are_not_changed_by_clipping(parameters: NamedParameters) -> None:
    """Callbacks and logs see the gradient as it was."""
    set_gradients(parameters, 0)
    BertAdam(parameters).step()
    for (_, parameter), gradient in zip(parameters, gradients(parameters, 0), strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


def test_tensors_are_clipped_apart(parameters: NamedParameters) -> None:
    """Making one tensor's gradient longer changes nothing for the others, and little for itself."""
    moved = []
    for factor in (1.0, 100.0):
        copies = copy.deepcopy(parameters)
        set_gradients(copies, 0)
        copies[0][1].grad = gradients(parameters, 0)[0] * factor
        BertAdam(copies, lr=0.01).step()
        moved.append([p.detach() for _, p in copies])
    assert all(torch.equal(a, b) for a, b in zip(moved[0][1:], moved[1][1:], strict=True))
    torch.testing.assert_close(moved[0][0], moved[1][0], rtol=1e-6, atol=1e-6)


def test_first_step(parameters: NamedParameters) -> None:
    """0.1 * g / sqrt(0.001 * g * g) is 3.16 times the sign of g; there is no bias correction."""
    before = [p.detach().clone() for _, p in parameters]
    set_gradients(parameters, 0)
    BertAdam(parameters, lr=1e-3, weight_decay=0.0).step()
    for (_, parameter), start in zip(parameters, before, strict=True):
        assert parameter.grad is not None
        large = parameter.grad.abs() > 0.01 * parameter.grad.norm()
        steps = ((parameter.detach() - start) / 1e-3)[large]
        expected = -(10**0.5) * parameter.grad.sign()[large]
        torch.testing.assert_close(steps, expected, rtol=0.02, atol=0.0)


def test_parameters_without_gradient_stay(parameters: NamedParameters) -> None:
    set_gradients(parameters, 0)
    parameters[0][1].grad = None
    before = parameters[0][1].detach().clone()
    optimizer = BertAdam(parameters)
    optimizer.step()
    assert torch.equal(parameters[0][1].detach(), before)
    assert parameters[0][1] not in optimizer.state


def test_decay_by_name(parameters: NamedParameters) -> None:
    groups = BertAdam(parameters).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = [name for name, p in parameters if id(p) in decayed]
    assert names == ["encoder.layer.0.output.dense.weight", "classifier.weight"]


def test_parameter_groups_of_the_config(parameters: NamedParameters) -> None:
    config = {"type": "bert_adam", "lr": 1e-3, "parameter_groups": [[["classifier"], {"lr": 0.1}]]}
    optimizer = Optimizer.from_params(Params(config), model_parameters=parameters)
    assert isinstance(optimizer, BertAdam)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for _, p in parameters] == [1e-3, 1e-3, 1e-3, 1e-3, 0.1]


def test_closure(parameters: NamedParameters) -> None:
    name, parameter = parameters[0]

    def closure() -> torch.Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    before = closure().item()
    assert BertAdam([(name, parameter)]).step(closure).item() == before


@pytest.mark.parametrize(
    "options",
    [{"lr": -1e-5}, {"eps": 0.0}, {"weight_decay": -0.1}, {"betas": (1.0, 0.999)}, {"betas": (0.9, -0.1)}],
    ids=str,
)
def test_values_out_of_range(parameters: NamedParameters, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"bert_adam: .* must be at least 0"):
        BertAdam(parameters, **options)


def test_state_dict(parameters: NamedParameters) -> None:
    """A recovered run goes on with the same steps, bit for bit."""

    def steps(optimizer: BertAdam, parameters: NamedParameters, numbers: range) -> list[torch.Tensor]:
        for number in numbers:
            set_gradients(parameters, number)
            optimizer.step()
        return [p.detach().clone() for _, p in parameters]

    optimizer = BertAdam(parameters, lr=0.01)
    steps(optimizer, parameters, range(2))
    copies, saved = copy.deepcopy(parameters), copy.deepcopy(optimizer.state_dict())
    expected = steps(optimizer, parameters, range(2, 4))
    recovered = BertAdam(copies, lr=0.5)
    recovered.load_state_dict(saved)
    found = steps(recovered, copies, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
