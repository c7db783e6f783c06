"""Second-order MAML against finite differences, and against a plain double backward pass."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import AdamOptimizer, AdamWOptimizer, SgdOptimizer
from torch.nn.attention import SDPBackend, sdpa_kernel

from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import HEAD, FirstOrderMaml, MetaGradient
from allennlp_metaner.meta.second_order_maml import Maml
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.bert_adam import BertAdam
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.tasks.task_field import Task

LAMBDA = 2.0
TOLERANCE = 1e-9
TaskMaker = Callable[..., list[Task]]

# Smooth, so that finite differences say something; far enough for second derivatives to count.
SMOOTH: dict[str, Any] = {"lr": 1e-2, "eps": 1e-2}
OPTIMIZERS: dict[str, tuple[Lazy, type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (Lazy(SgdOptimizer, lr=0.05), torch.optim.SGD, {"lr": 0.05}),
    "adam": (Lazy(AdamOptimizer, **SMOOTH), torch.optim.Adam, SMOOTH),
    "decayed": (
        Lazy(AdamWOptimizer, **SMOOTH, weight_decay=0.1),
        torch.optim.AdamW,
        {**SMOOTH, "weight_decay": 0.1},
    ),
}


@pytest.fixture
def model(make_tagger: Callable[..., MaxLossTagger]) -> MaxLossTagger:
    return make_tagger(max_loss_weight=LAMBDA).eval()


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@pytest.mark.parametrize("num_steps", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_finite_differences(
    model: MaxLossTagger, make_tasks: TaskMaker, reference: SimpleNamespace, name: str, num_steps: int
) -> None:
    optimizer, plain, options = OPTIMIZERS[name]
    tasks, parameters = make_tasks(2, (1, 2)), trainable_parameters(model)

    def loss_at(direction: torch.Tensor, distance: float) -> float:
        """After plain loops from meta parameters a little off."""
        moved, total = copy.deepcopy(model), 0.0
        own = [parameter for _, parameter in trainable_parameters(moved)]
        for parameter, part in zip(own, direction.split([p.numel() for p in own]), strict=True):
            parameter.data += distance * part.view_as(parameter)
        for task in tasks:
            updates = reference.of_pytorch(plain, **options)
            weights = reference.adapted(moved, task["support"], updates, num_steps)
            total += reference.loss(moved, weights, task["query"], LAMBDA).item()
        return total

    found = Maml(InnerLoop(optimizer, num_steps))(model, parameters, tasks, seed=0)
    gradient = flat(found.gradient)
    assert found.loss.item() == pytest.approx(loss_at(gradient, 0.0), rel=TOLERANCE)
    generator = torch.Generator().manual_seed(num_steps)
    noise = torch.randn(gradient.shape, dtype=gradient.dtype, generator=generator)
    for direction in (gradient, noise):
        direction = direction / direction.norm()
        expected = (loss_at(direction, 1e-6) - loss_at(direction, -1e-6)) / 2e-6
        assert (gradient @ direction).item() == pytest.approx(expected, rel=1e-4)
    first_order = FirstOrderMaml(InnerLoop(optimizer, num_steps))(model, parameters, tasks, seed=0)
    assert reference.relative_difference(first_order.gradient, found.gradient) > 1e-3


@pytest.mark.parametrize("part", [None, HEAD], ids=["all", "head"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_equals_a_double_backward_pass(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    part: list[str] | None,
    reduction: str,
) -> None:
    """SGD in a plain loop; of the head, the others' gradients go through its steps, too."""
    tasks, parameters = make_tasks(2, 2), trainable_parameters(model)
    start = {name: parameter.detach().clone().requires_grad_() for name, parameter in parameters}
    total = torch.zeros((), dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):
        for task in tasks:
            weights = dict(start)
            for _ in range(2):
                own = {n: w for n, w in weights.items() if part is None or n.startswith("classifier.")}
                loss = reference.loss(model, weights, task["support"], LAMBDA)
                found = torch.autograd.grad(loss, list(own.values()), create_graph=True)
                for (name, weight), gradient in zip(own.items(), found, strict=True):
                    weights[name] = weight - 0.05 * 0.5 * gradient
            total = total + reference.loss(model, weights, task["query"], LAMBDA)
        expected = torch.autograd.grad(total, list(start.values()))
    loop = InnerLoop(Lazy(SgdOptimizer, lr=0.05), 2, parameters=part)
    ours = Maml(loop, reduction)(model, parameters, tasks, seed=0, learning_rate_scale=0.5).gradient
    factor = 1 if reduction == "sum" else 0.5
    assert reference.relative_difference(ours, [factor * gradient for gradient in expected]) <= TOLERANCE


def test_one_sentence_after_the_other(
    model: MaxLossTagger, make_tasks: TaskMaker, reference: SimpleNamespace
) -> None:
    """With a step that changes next to nothing, it is first-order MAML."""
    parameters, tasks = trainable_parameters(model), make_tasks(2, (1, 3))
    loops = [InnerLoop(Lazy(SgdOptimizer, lr=1e-7), 1, batching="one_by_one") for _ in range(2)]
    ours = Maml(loops[0])(model, parameters, tasks, seed=0)
    theirs = FirstOrderMaml(loops[1])(model, parameters, tasks, seed=0)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=TOLERANCE)
    assert reference.relative_difference(ours.gradient, theirs.gradient) <= 1e-3


def test_gradients_of_0_make_no_nan(model: MaxLossTagger, make_tasks: TaskMaker) -> None:
    """As those of the rows of subwords that no sentence has, where the root of Adam has no derivative."""
    unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.register_parameter("unused", unused)
    parameters = trainable_parameters(model)
    gradient = Maml(InnerLoop(num_steps=3))(model, parameters, make_tasks(1, 2), seed=0).gradient
    assert all(part.isfinite().all() for part in gradient)


def test_dropout_is_that_of_the_seed(
    make_tagger: Callable[..., MaxLossTagger], make_tasks: TaskMaker
) -> None:
    model, tasks = make_tagger().train(), make_tasks(2, 2)
    parameters, state = trainable_parameters(model), torch.get_rng_state()
    first, again, other = (Maml()(model, parameters, tasks, seed=seed).gradient for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_changes_nothing(model: MaxLossTagger, make_tasks: TaskMaker) -> None:
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        Maml()(model, trainable_parameters(model), make_tasks(1, 2), seed=0)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "optimizer", [Lazy(BertAdam), Lazy(SgdOptimizer, lr=0.1, momentum=0.9), Lazy(AdamOptimizer, amsgrad=True)]
)
def test_refused(model: MaxLossTagger, make_tasks: TaskMaker, optimizer: Lazy) -> None:
    algorithm = Maml(InnerLoop(optimizer))
    with pytest.raises(ConfigurationError, match=r"cannot go back .* published_as_adam"):
        algorithm(model, trainable_parameters(model), make_tasks(1, 2), seed=0)


def test_is_registered() -> None:
    assert isinstance(MetaGradient.from_params(Params({"type": "maml", "inner_loop": {}})), Maml)
