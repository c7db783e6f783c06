"""Inner loops that take the support sentences one by one, or adapt some of the parameters, against loops."""

import copy
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allpairspy import AllPairs

from allennlp_metaner.meta import functional as functional_module
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import HEAD, Anil, FirstOrderMaml, MetaGradient
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.nn.task_layers import LinearFunction
from allennlp_metaner.tasks.task_field import Task

LAMBDA = 2.0
TOLERANCE = 1e-9
FAR_OFF = 1e-6
RAGGED = (1, 2, 5)
TOP = [r"layer\.4\.", "^classifier"]
BOTTOM = [r"layer\.3\..*(weight|LayerNorm\.bias)$"]
Weights = dict[str, torch.Tensor]
TaskMaker = Callable[..., list[Task]]
PARTS: list[Optional[list[str]]] = [None, HEAD, TOP, BOTTOM]


@pytest.fixture(scope="module")
def model(make_tagger: Callable[..., MaxLossTagger]) -> MaxLossTagger:
    return make_tagger(max_loss_weight=LAMBDA).eval()


def adapts(name: str, part: Optional[list[str]]) -> bool:
    """Written out, without regular expressions."""
    if part is None:
        return True
    if part is BOTTOM:
        return "layer.3." in name and name.endswith(("weight", "LayerNorm.bias"))
    return name.startswith("classifier.") or (part is TOP and "layer.4." in name)


def one_sentence(batch: Any, number: int) -> Any:
    tokens = {key: value[number : number + 1] for key, value in batch["tokens"]["tokens"].items()}
    return {"tokens": {"tokens": tokens}, "tags": batch["tags"][number : number + 1]}


def loop_over(
    model: MaxLossTagger,
    support: Any,
    updates: Any,
    reference: SimpleNamespace,
    num_steps: int,
    one_by_one: bool,
    part: Optional[list[str]],
    weight: float = LAMBDA,
) -> Weights:
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(num_steps):
        batches = [support]
        if one_by_one:
            batches = [one_sentence(support, number) for number in range(len(support["tags"]))]
        for batch in batches:
            found = reference.gradient(model, weights, batch, weight)
            for name in weights:
                if adapts(name, part):
                    weights[name] = updates.step(name, weights[name], found[name])
    return weights


@pytest.fixture(scope="module")
def tasks(make_tasks: TaskMaker) -> list[Task]:
    return make_tasks(4, RAGGED)


@pytest.fixture(scope="module")
def adapted(
    model: MaxLossTagger, tasks: list[Task], reference: SimpleNamespace
) -> Callable[..., list[Weights]]:
    """The tasks' weights by plain loops, which take longest: once for all ways to come to the same."""

    @cache
    def found(optimizer: str, num_steps: int, batching: str, part: int, weight: float) -> list[Weights]:
        one_by_one = batching == "one_by_one"
        return [
            loop_over(
                *(model, task["support"], reference.updates(optimizer), reference, num_steps),
                *(one_by_one, PARTS[part], weight),
            )
            for task in tasks
        ]

    return found


@pytest.fixture(scope="module")
def expected(
    model: MaxLossTagger,
    tasks: list[Task],
    reference: SimpleNamespace,
    adapted: Callable[..., list[Weights]],
) -> Callable[..., tuple[list[torch.Tensor], float]]:
    """The meta-gradient and its loss, likewise."""

    @cache
    def found(*way: Any) -> tuple[list[torch.Tensor], float]:
        pairs = [(weights, task["query"]) for weights, task in zip(adapted(*way, LAMBDA), tasks, strict=True)]
        gradients = [reference.gradient(model, weights, query) for weights, query in pairs]
        losses = [reference.loss(model, weights, query, LAMBDA).item() for weights, query in pairs]
        names = [name for name, _ in trainable_parameters(model)]
        return [torch.stack([each[name] for each in gradients]).sum(0) for name in names], sum(losses)

    return found


WAYS: list[dict[str, Any]] = [
    {},
    {"microbatch_size": 1, "num_workers": 2},
    {"microbatch_size": 10_000, "group_size": 2},
    {"execution": "batched"},
    {"execution": "batched", "group_size": 2},
]


BATCHINGS = ["together", "one_by_one"]


@pytest.mark.parametrize(
    ("options", "part", "batching", "steps"),
    AllPairs([WAYS, range(4), BATCHINGS, [("adam", 1), ("adam", 2), ("bert_adam", 2)]]),
    ids=str,
)
def test_meta_gradient(
    model: MaxLossTagger,
    tasks: list[Task],
    reference: SimpleNamespace,
    expected: Callable[..., tuple[list[torch.Tensor], float]],
    options: dict[str, Any],
    part: int,
    batching: str,
    steps: tuple[str, int],
) -> None:
    """Taken for all parameters, whatever adapts. Every pair of settings is there."""
    optimizer, num_steps = steps
    lazy, parameters = reference.lazy(optimizer), trainable_parameters(model)
    loop = InnerLoop(lazy, num_steps, batching=batching, parameters=PARTS[part], **options)
    found = FirstOrderMaml(loop)(model, parameters, tasks, seed=0)
    gradient, loss = expected(optimizer, num_steps, batching, part)
    assert reference.relative_difference(found.gradient, gradient) <= TOLERANCE
    assert found.loss.item() == pytest.approx(loss, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "part", "batching", "num_steps"), AllPairs([WAYS, range(4), BATCHINGS, [1, 3]]), ids=str
)
def test_adaptation(
    model: MaxLossTagger,
    tasks: list[Task],
    reference: SimpleNamespace,
    adapted: Callable[..., list[Weights]],
    options: dict[str, Any],
    part: int,
    batching: str,
    num_steps: int,
) -> None:
    lazy = reference.lazy("adam")
    loop = InnerLoop(lazy, num_steps, batching=batching, parameters=PARTS[part], **options)
    before = copy.deepcopy(model.state_dict())
    outputs = TestTimeAdaptation(loop).predict(model, tasks)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    by_loops = adapted("adam", num_steps, batching, part, 0.0)
    for task, output, weights in zip(tasks, outputs, by_loops, strict=True):
        tokens = {"tokens": task["query"]["tokens"]}
        start, expected = (
            torch.func.functional_call(model, values, kwargs=tokens)["logits"].detach()
            for values in ({}, weights)
        )
        found = output["logits"][:, : expected.size(1)]
        # Of the change, not of the logits, which hardly move.
        assert reference.relative_difference([found - start], [expected - start]) <= 1e-7
        assert reference.relative_difference([start], [expected]) > FAR_OFF


def test_one_by_one_begins_with_the_nearest(
    model: MaxLossTagger, make_tasks: TaskMaker, reference: SimpleNamespace
) -> None:
    (task,) = make_tasks(1, 2)
    turned = {"query": task["query"], "support": {**task["support"]}}
    turned["support"]["tags"] = task["support"]["tags"].flip(0)
    turned["support"]["tokens"] = {
        "tokens": {key: value.flip(0) for key, value in task["support"]["tokens"]["tokens"].items()}
    }
    parameters = trainable_parameters(model)
    results = {
        batching: [
            FirstOrderMaml(InnerLoop(reference.lazy("adam"), 1, batching=batching))(
                model, parameters, [each], seed=0
            ).gradient
            for each in (task, turned)
        ]
        for batching in ("together", "one_by_one")
    }
    assert reference.relative_difference(*results["together"]) <= TOLERANCE
    assert reference.relative_difference(*results["one_by_one"]) > FAR_OFF


@pytest.mark.parametrize("part", [HEAD, TOP], ids=["head", "top"])
def test_nothing_below_is_differentiated(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    part: list[str],
) -> None:
    """The layers below run, but take no part in a backward pass, and leave nothing in memory for one."""
    recorded, run = [], []
    apply, plain = LinearFunction.apply, functional_module.linear
    monkeypatch.setattr(LinearFunction, "apply", lambda *a: recorded.append(a) or apply(*a))
    monkeypatch.setattr(functional_module, "linear", lambda *a: run.append(a) or plain(*a))
    loop = InnerLoop(reference.lazy("adam"), 1, parameters=part)
    TestTimeAdaptation(loop).predict(model, make_tasks(1, 2))
    # A layer has six linear layers, and the fourth and fifth of five are trainable.
    assert len(recorded) == {1: 1, 2: 7}[len(part)]
    assert not any(inputs.requires_grad for inputs, *_ in run)
    assert run


def test_anil_from_params(model: MaxLossTagger, make_tasks: TaskMaker, reference: SimpleNamespace) -> None:
    settings = {
        "optimizer": {"type": "adam", "lr": 3e-5},
        "num_steps": 1,
        "batching": "one_by_one",
        "parameters": HEAD,
    }
    algorithm = MetaGradient.from_params(Params({"type": "anil", "inner_loop": settings}))
    parameters, tasks = trainable_parameters(model), make_tasks(3, 2)
    expected = FirstOrderMaml(InnerLoop(reference.lazy("adam"), 1, batching="one_by_one", parameters=HEAD))
    assert all(
        map(
            torch.equal,
            algorithm(model, parameters, tasks, seed=0).gradient,
            expected(model, parameters, tasks, seed=0).gradient,
        )
    )


def test_default_of_anil(model: MaxLossTagger, make_tasks: TaskMaker) -> None:
    parameters, tasks = trainable_parameters(model), make_tasks(2, 2)
    expected = FirstOrderMaml(InnerLoop(parameters=["classifier"]))(model, parameters, tasks, seed=0)
    assert all(map(torch.equal, Anil()(model, parameters, tasks, seed=0).gradient, expected.gradient))


def test_refused(model: MaxLossTagger, make_tasks: TaskMaker) -> None:
    with pytest.raises(ConfigurationError, match=r"batching='random' .* together, one_by_one"):
        InnerLoop(batching="random")
    with pytest.raises(ConfigurationError, match="inner loop of 'anil' adapts all parameters"):
        Anil(InnerLoop())
    with pytest.raises(ConfigurationError, match=r"parameters=\['\^head'\] of the inner loop match none"):
        loop = InnerLoop(parameters=["^head"])
        FirstOrderMaml(loop)(model, trainable_parameters(model), make_tasks(1, 2), seed=0)
