"""Adaptation: what it does to a sentence, and that it leaves no trace."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from allennlp.common import Params
from allennlp.data import TensorDict

from allennlp_metaner.meta.adapter import Adapter
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.tasks.task_field import Task

TOLERANCE = 1e-9


def make_adapter(lr: float = 1e-2, **options: Any) -> Adapter:
    """With steps so large that they change the tags of a random model."""
    return Adapter.from_params(
        Params({"inner_loop": {"optimizer": {"type": "adam", "lr": lr}, "num_steps": 1}, **options})
    )


@pytest.fixture
def model(make_tagger: Callable[..., MaxLossTagger]) -> MaxLossTagger:
    return make_tagger(max_loss_weight=2.0)


@pytest.fixture
def tasks(make_tasks: Callable[[int, int], list[Task]]) -> list[Task]:
    return make_tasks(4, 2)


def reference_loss(model: MaxLossTagger, batch: TensorDict) -> torch.Tensor:
    """Eq. 3, sentence by sentence."""
    output = model(tokens=batch["tokens"])
    total = torch.zeros((), dtype=output["logits"].dtype)
    for rows, tags, mask in zip(output["logits"], batch["tags"], output["mask"], strict=True):
        losses = rows[mask].log_softmax(-1).gather(1, tags[mask].unsqueeze(1))
        total = total - losses.sum() / len(losses)
    return total


def reference_logits(model: MaxLossTagger, task: Task, lr: float) -> torch.Tensor:
    """A copy of the model, one Adam step from zero state (lr * g / (|g| + eps)), and a forward pass."""
    model = copy.deepcopy(model).eval()
    reference_loss(model, task["support"]).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is not None:
                parameter -= lr * parameter.grad / (parameter.grad.abs() + 1e-8)
        return model(tokens=task["query"]["tokens"])["logits"]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_equals_the_reference(model: MaxLossTagger, tasks: list[Task]) -> None:
    unadapted = [copy.deepcopy(model).eval()(tokens=task["query"]["tokens"])["logits"] for task in tasks]
    outputs = make_adapter().label(model, tasks)
    for output, task, before in zip(outputs, tasks, unadapted, strict=True):
        expected = reference_logits(model, task, 1e-2)
        assert relative(output["logits"], expected) <= TOLERANCE
        assert relative(before, expected) > 1e-3


def test_default_is_one_small_adam_step(model: MaxLossTagger, tasks: list[Task]) -> None:
    (output,) = Adapter().label(model, tasks[:1])
    assert relative(output["logits"], reference_logits(model, tasks[0], 1e-5)) <= TOLERANCE


def test_max_loss_only_if_asked_for(model: MaxLossTagger, tasks: list[Task]) -> None:
    plain, with_max = (
        make_adapter(max_loss_weight=weight).label(model, tasks[:1])[0]["logits"] for weight in (0.0, 2.0)
    )
    assert not torch.equal(plain, with_max)


@pytest.mark.parametrize("dropout", [False, True])
def test_a_sentence_does_not_depend_on_its_company(
    model: MaxLossTagger, tasks: list[Task], dropout: bool
) -> None:
    adapter = make_adapter(dropout=dropout)
    together = [output["logits"] for output in adapter.label(model, tasks)]
    torch.rand(7)
    alone = [adapter.label(model, [task])[0]["logits"] for task in tasks]
    backwards = [output["logits"] for output in adapter.label(model, tasks[::-1])][::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_dropout_is_on_only_if_asked_for(model: MaxLossTagger, tasks: list[Task]) -> None:
    without, with_dropout = (
        make_adapter(dropout=dropout).label(model.train(), tasks[:1])[0]["logits"]
        for dropout in (False, True)
    )
    assert relative(without, reference_logits(model, tasks[0], 1e-2)) <= TOLERANCE
    assert not torch.equal(without, with_dropout)


def everything(model: MaxLossTagger) -> dict[str, Any]:
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()},
        "gradients": [p.grad for p in model.parameters() if p.grad is None]
        + [id(p.grad) for p in model.parameters() if p.grad is not None],
        "modes": [module.training for module in model.modules()],
        "random": (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()),
    }


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("dropout", [True, False])
def test_leaves_no_trace(model: MaxLossTagger, tasks: list[Task], mode: bool, dropout: bool) -> None:
    model.train(mode)
    model.classifier.eval()
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    before = everything(model)
    make_adapter(dropout=dropout).label(model, tasks)
    assert everything(model) == before


@pytest.mark.parametrize("method", ["loss", "forward"])
def test_leaves_no_trace_after_an_exception(
    model: MaxLossTagger, tasks: list[Task], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Whether the update or the labelling of the second sentence fails."""
    original, calls = getattr(model, method), []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return original(*args, **kwargs)

    monkeypatch.setattr(model, method, failing)
    before = everything(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        make_adapter().label(model, tasks)
    assert everything(model) == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_in_any_gradient_mode(model: MaxLossTagger, tasks: list[Task], context: Callable[[], Any]) -> None:
    """AllenNLP validates and predicts under `no_grad`; users may do so under `inference_mode`."""
    expected = make_adapter().label(model, tasks[:1])[0]
    before = everything(model)
    with context():
        output = make_adapter().label(model, tasks[:1])[0]
        # A batch that is made in inference mode, as a predictor does.
        made_inside = copy.deepcopy(tasks[:1])
        again = make_adapter().label(model, made_inside)[0]
    for found in (output, again):
        assert torch.equal(found["logits"], expected["logits"])
        assert not found["logits"].requires_grad
    assert everything(model) == before


def test_metrics_see_the_queries_only(model: MaxLossTagger, tasks: list[Task]) -> None:
    model.get_metrics(reset=True)
    outputs = make_adapter().label(model, tasks)
    found = model.get_metrics(reset=True)
    names = model.vocab.get_index_to_token_vocabulary("labels")
    gold = [[names[i] for i in task["query"]["tags"][0].tolist()] for task in tasks]
    model._metric([output["tags"][0] for output in outputs], gold)
    assert found == model._metric.get_metric(reset=True)
    words = sum(map(len, gold))
    assert found["accuracy"] * words == pytest.approx(round(found["accuracy"] * words))


def test_queries_without_labels(model: MaxLossTagger, tasks: list[Task]) -> None:
    expected = [output["tags"] for output in make_adapter().label(model, tasks)]
    model.get_metrics(reset=True)
    for task in tasks:
        del task["query"]["tags"]
    outputs = make_adapter().label(model, tasks)
    assert [output["tags"] for output in outputs] == expected
    assert "loss" not in outputs[0]
    assert model.get_metrics() == {}


def test_no_tasks(model: MaxLossTagger) -> None:
    assert make_adapter().label(model, []) == []
