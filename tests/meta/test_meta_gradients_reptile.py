"""Reptile against a plain loop."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common import Params
from allpairspy import AllPairs

from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import HEAD, MetaGradient, Reptile
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.tasks.task_field import Task

LAMBDA = 2.0
TOLERANCE = 1e-9
TaskMaker = Callable[..., list[Task]]


@pytest.fixture
def model(make_tagger: Callable[..., MaxLossTagger]) -> MaxLossTagger:
    return make_tagger(max_loss_weight=LAMBDA).eval()


def step(
    model: MaxLossTagger, reference: SimpleNamespace, updates: Any, task: Task, weights: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """One step on query and support: the loss of several sentences is the sum of their losses."""
    parts = [reference.gradient(model, weights, task[name]) for name in ("query", "support")]
    return {
        name: updates.step(name, value, parts[0][name] + parts[1][name]) for name, value in weights.items()
    }


WAYS: list[dict[str, Any]] = [
    {},
    {"microbatch_size": 1, "num_workers": 2},
    {"group_size": 2},
    {"execution": "batched"},
]
STEPS = [("sgd", 1), ("sgd", 2), ("adam", 2), ("bert_adam", 1)]


@pytest.mark.parametrize(("options", "steps", "reduction"), AllPairs([WAYS, STEPS, ["sum", "mean"]]), ids=str)
def test_equals_a_plain_loop(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    options: dict[str, Any],
    steps: tuple[str, int],
    reduction: str,
) -> None:
    optimizer, num_steps = steps
    tasks, parameters = make_tasks(4, (1, 2, 5)), trainable_parameters(model)
    start = {name: parameter.detach() for name, parameter in parameters}
    expected, losses = {name: torch.zeros_like(value) for name, value in start.items()}, []
    for task in tasks:
        weights, updates = dict(start), reference.updates(optimizer)
        for _ in range(num_steps):
            weights = step(model, reference, updates, task, weights)
        for name in expected:
            expected[name] += start[name] - weights[name]
        losses.append(reference.loss(model, weights, task["query"], LAMBDA).item())
    factor = 1 if reduction == "sum" else 1 / len(tasks)
    loop = InnerLoop(reference.lazy(optimizer), num_steps, **options)
    found = Reptile(loop, reduction)(model, parameters, tasks, seed=0)
    theirs = [factor * expected[name] for name in start]
    assert reference.relative_difference(found.gradient, theirs) <= TOLERANCE
    assert found.loss.item() == pytest.approx(factor * sum(losses), rel=TOLERANCE)
    assert all(torch.equal(parameter, start[name]) for name, parameter in parameters)


def test_what_does_not_adapt_has_no_gradient(
    model: MaxLossTagger, make_tasks: TaskMaker, reference: SimpleNamespace
) -> None:
    parameters = trainable_parameters(model)
    loop = InnerLoop(reference.lazy("adam"), 2, parameters=HEAD)
    found = Reptile(loop)(model, parameters, make_tasks(2, 2), seed=0).gradient
    for (name, _), gradient in zip(parameters, found, strict=True):
        assert (gradient.abs().max() > 0) == name.startswith("classifier.")


def test_is_registered() -> None:
    assert isinstance(MetaGradient.from_params(Params({"type": "reptile", "inner_loop": {}})), Reptile)
