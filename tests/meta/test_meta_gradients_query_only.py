"""The gradient of the queries alone, against the reference at the meta parameters."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import FirstOrderMaml, MetaGradient, QueryOnly
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.tasks.task_field import Task

LAMBDA = 2.0
TOLERANCE = 1e-9


@pytest.fixture
def model(make_tagger: Callable[..., MaxLossTagger]) -> MaxLossTagger:
    return make_tagger(max_loss_weight=LAMBDA).eval()


@pytest.fixture
def tasks(make_tasks: Callable[..., list[Task]]) -> list[Task]:
    return make_tasks(5, 2)


@pytest.mark.parametrize("microbatch_size", [1, 20, 10_000])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_equals_the_reference(
    model: MaxLossTagger, tasks: list[Task], reference: SimpleNamespace, microbatch_size: int, reduction: str
) -> None:
    parameters = trainable_parameters(model)
    weights = {name: parameter.detach() for name, parameter in parameters}
    factor = 1 if reduction == "sum" else 1 / len(tasks)
    gradients = [reference.gradient(model, weights, task["query"]) for task in tasks]
    expected = [factor * torch.stack([g[name] for g in gradients]).sum(0) for name, _ in parameters]
    losses = [reference.loss(model, weights, task["query"], LAMBDA) for task in tasks]
    found = QueryOnly(microbatch_size, reduction)(model, parameters, tasks, seed=0)
    assert reference.relative_difference(found.gradient, expected) <= TOLERANCE
    assert found.loss.item() == pytest.approx(factor * torch.stack(losses).sum().item(), rel=TOLERANCE)


@pytest.mark.parametrize(
    "options",
    [{"frozen_layers": None}, {"embedder": {"max_length": 9, "overlap": 3}}],
    ids=["trainable embeddings", "windows"],
)
def test_is_first_order_maml_with_an_inner_rate_of_0(
    make_tagger: Callable[..., MaxLossTagger],
    tasks: list[Task],
    reference: SimpleNamespace,
    options: dict[str, Any],
) -> None:
    model = make_tagger(**options).eval()
    parameters = trainable_parameters(model)
    maml = FirstOrderMaml(InnerLoop(reference.lazy("sgd")))
    expected = maml(model, parameters, tasks, seed=0, learning_rate_scale=0.0)
    found = QueryOnly()(model, parameters, tasks, seed=0)
    assert reference.relative_difference(found.gradient, expected.gradient) <= TOLERANCE
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=TOLERANCE)


def test_runs_no_support(model: MaxLossTagger, tasks: list[Task]) -> None:
    parameters = trainable_parameters(model)
    expected = QueryOnly()(model, parameters, tasks, seed=0)
    without: list[Any] = [{"query": task["query"]} for task in tasks]
    found = QueryOnly()(model, parameters, without, seed=0)
    assert all(map(torch.equal, found.gradient, expected.gradient))


def test_random_numbers_are_those_of_the_seed(
    make_tagger: Callable[..., MaxLossTagger], tasks: list[Task]
) -> None:
    model = make_tagger().train()
    parameters, algorithm = trainable_parameters(model), QueryOnly(microbatch_size=20)
    first = algorithm(model, parameters, tasks, seed=3).gradient
    torch.rand(7)
    state = torch.get_rng_state()
    with torch.no_grad():
        again = algorithm(model, parameters, tasks, seed=3).gradient
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    other = algorithm(model, parameters, tasks, seed=4).gradient
    assert not all(map(torch.equal, first, other))


def test_random_numbers_belong_to_a_task(
    make_tagger: Callable[..., MaxLossTagger], tasks: list[Task], reference: SimpleNamespace
) -> None:
    """With dropout, whatever the size of microbatches."""
    model = make_tagger().train()
    parameters = trainable_parameters(model)
    first, *others = (
        QueryOnly(microbatch_size=size)(model, parameters, tasks, seed=3) for size in (1, 20, 10_000)
    )
    for found in others:
        assert found.loss.item() == pytest.approx(first.loss.item(), rel=1e-12)
        assert reference.relative_difference(found.gradient, first.gradient) <= TOLERANCE


def test_changes_nothing(model: MaxLossTagger, tasks: list[Task]) -> None:
    before = copy.deepcopy(model.state_dict())
    QueryOnly()(model, trainable_parameters(model), tasks, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_parameter_without_use_has_no_gradient(model: MaxLossTagger, tasks: list[Task]) -> None:
    unused = torch.nn.Parameter(torch.ones(3))
    gradient = QueryOnly()(model, [*trainable_parameters(model), ("unused", unused)], tasks, seed=0).gradient
    assert torch.equal(gradient[-1], torch.zeros(3))


def test_is_registered(model: MaxLossTagger, tasks: list[Task]) -> None:
    algorithm = MetaGradient.from_params(
        Params({"type": "query_only", "microbatch_size": 9, "reduction": "mean"})
    )
    parameters = trainable_parameters(model)
    found = algorithm(model, parameters, tasks, seed=0).loss
    assert found.item() == pytest.approx(QueryOnly()(model, parameters, tasks, 0).loss.item() / len(tasks))


def test_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"reduction='max' must be one of sum, mean"):
        QueryOnly(reduction="max")
    with pytest.raises(ConfigurationError, match="microbatch_size=0 of 'query_only'"):
        QueryOnly(microbatch_size=0)
