"""Adaptation: what it does to a sentence, and that it leaves no trace."""

import copy
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from allennlp.common import Params
from allennlp.data import TensorDict

from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.tasks.task_field import Task

TOLERANCE = 1e-9
LOOP_OPTIONS = {"num_steps", "microbatch_size", "num_workers", "optimizer", "execution"}


WAYS: list[dict[str, Any]] = [
    {},
    {"microbatch_size": 1, "num_workers": 2},
    {"microbatch_size": 40, "num_workers": 3},
    {"microbatch_size": 10_000, "num_workers": 1},
    {"execution": "batched"},
    {"execution": "batched", "microbatch_size": 40, "num_workers": 2},
]


def make_adaptation(lr: float = 1e-2, **options: Any) -> TestTimeAdaptation:
    """With steps so large that they change the tags of a random model."""
    loop = {"optimizer": {"type": "adam", "lr": lr}, "num_steps": 1}
    loop.update((key, options.pop(key)) for key in LOOP_OPTIONS & options.keys())
    return TestTimeAdaptation.from_params(Params({"inner_loop": loop, **options}))


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
    # Sentences that are labelled together are padded to the longest.
    ours = ours[:, : theirs.size(1)]
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_equals_the_reference(model: MaxLossTagger, tasks: list[Task]) -> None:
    unadapted = [copy.deepcopy(model).eval()(tokens=task["query"]["tokens"])["logits"] for task in tasks]
    outputs = make_adaptation().predict(model, tasks)
    for output, task, before in zip(outputs, tasks, unadapted, strict=True):
        expected = reference_logits(model, task, 1e-2)
        assert relative(output["logits"], expected) <= TOLERANCE
        assert relative(before, expected) > 1e-3
        assert output["mask"].sum() == len(output["tags"][0]) == expected.size(1)


def test_default_is_one_small_adam_step(model: MaxLossTagger, tasks: list[Task]) -> None:
    (output,) = TestTimeAdaptation().predict(model, tasks[:1])
    assert relative(output["logits"], reference_logits(model, tasks[0], 1e-5)) <= TOLERANCE


def test_max_loss_only_if_asked_for(model: MaxLossTagger, tasks: list[Task]) -> None:
    plain, with_max = (
        make_adaptation(max_loss_weight=weight).predict(model, tasks[:1])[0]["logits"]
        for weight in (0.0, 2.0)
    )
    assert not torch.equal(plain, with_max)


@pytest.fixture(scope="module")
def expected_logits(
    make_tagger: Callable[..., MaxLossTagger],
    make_tasks: Callable[..., list[Task]],
    reference: SimpleNamespace,
) -> dict[int, list[torch.Tensor]]:
    """After one step and after two, of `test_any_way_equals_the_reference`'s tasks."""
    model, tasks = make_tagger(max_loss_weight=2.0), make_tasks(5, (1, 2, 5))
    return {
        1: [reference_logits(model, task, 1e-2) for task in tasks],
        2: [stepped_logits(model, task, reference, 1e-2, 2) for task in tasks],
    }


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("num_steps", [1, 2])
def test_any_way_equals_the_reference(
    model: MaxLossTagger,
    make_tasks: Callable[..., list[Task]],
    expected_logits: dict[int, list[torch.Tensor]],
    options: dict[str, int],
    num_steps: int,
) -> None:
    """Any number of sentences, each with a support set of another size, in any chunks, by any workers."""
    adaptation = make_adaptation(num_steps=num_steps, **options)
    every = make_tasks(5, (1, 2, 5))
    for num_tasks in (1, 2, 5):
        outputs = adaptation.predict(model, every[:num_tasks])
        assert len(outputs) == num_tasks
        for output, theirs, task in zip(outputs, expected_logits[num_steps], every, strict=False):
            assert relative(output["logits"], theirs) <= TOLERANCE
            assert output["words"] == [task["query"]["metadata"][0]["words"]]
            assert list(map(len, output["tags"])) == list(map(len, output["words"]))


def stepped_logits(
    model: MaxLossTagger, task: Task, reference: SimpleNamespace, lr: float, num_steps: int
) -> torch.Tensor:
    twin = copy.deepcopy(model).eval()
    updates = reference.of_pytorch(torch.optim.Adam, lr=lr)
    weights = reference.adapted(twin, task["support"], updates, num_steps, 0.0)
    tokens = {"tokens": task["query"]["tokens"]}
    return torch.func.functional_call(twin, weights, kwargs=tokens)["logits"].detach()


def test_single_precision(model: MaxLossTagger, make_tasks: Callable[..., list[Task]]) -> None:
    tasks = make_tasks(8, (1, 2, 5))
    expected = [reference_logits(model, task, 1e-5) for task in tasks]
    for output, theirs in zip(TestTimeAdaptation().predict(model.float(), tasks), expected, strict=True):
        assert output["logits"].dtype == torch.float32
        assert relative(output["logits"].double(), theirs) <= 1e-4


@pytest.mark.parametrize("execution", ["per_task", "batched"])
@pytest.mark.parametrize("encoder", ["xlm-roberta", "roberta", "distilbert"])
def test_other_encoders(
    make_tagger: Callable[..., MaxLossTagger],
    make_tasks: Callable[..., list[Task]],
    other_encoders: dict[str, str],
    encoder: str,
    execution: str,
) -> None:
    model = make_tagger(other_encoders[encoder])
    tasks = make_tasks(5, (1, 2, 5), other_encoders[encoder])
    for output, task in zip(make_adaptation(execution=execution).predict(model, tasks), tasks, strict=True):
        assert relative(output["logits"], reference_logits(model, task, 1e-2)) <= TOLERANCE


@pytest.mark.parametrize(
    "options",
    [{"frozen_layers": None}, {"embedder": {"max_length": 9, "overlap": 3}}],
    ids=["trainable embeddings", "windows"],
)
@pytest.mark.parametrize("execution", ["per_task", "batched"])
def test_tasks_that_cannot_share_a_pass(
    make_tagger: Callable[..., MaxLossTagger],
    make_tasks: Callable[..., list[Task]],
    options: dict[str, Any],
    execution: str,
) -> None:
    """Whether it is the update that fails to keep them apart, or the labelling."""
    model = make_tagger(**options)
    tasks = make_tasks(8, (1, 2, 5))
    for output, task in zip(make_adaptation(execution=execution).predict(model, tasks), tasks, strict=True):
        assert relative(output["logits"], reference_logits(model, task, 1e-2)) <= TOLERANCE


def test_a_sentence_does_not_depend_on_its_company(model: MaxLossTagger, tasks: list[Task]) -> None:
    """But for rounding: sentences that are labelled together are padded."""
    adaptation = make_adaptation()
    together = adaptation.predict(model, tasks)
    torch.rand(7)
    alone = [adaptation.predict(model, [task])[0] for task in tasks]
    backwards = adaptation.predict(model, tasks[::-1])[::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        assert a["tags"] == b["tags"] == c["tags"]
        assert relative(a["logits"], b["logits"]) <= 1e-12
        assert relative(c["logits"], b["logits"]) <= 1e-12


def test_with_dropout_a_sentence_does_not_depend_on_its_company(
    model: MaxLossTagger, tasks: list[Task]
) -> None:
    """Bit for bit."""
    adaptation = make_adaptation(dropout=True)
    together = [output["logits"] for output in adaptation.predict(model, tasks)]
    torch.rand(7)
    alone = [adaptation.predict(model, [task])[0]["logits"] for task in tasks]
    backwards = [output["logits"] for output in adaptation.predict(model, tasks[::-1])][::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_same_bits_from_call_to_call(
    model: MaxLossTagger, make_tasks: Callable[..., list[Task]], dropout: bool, num_workers: int
) -> None:
    tasks = make_tasks(8, (1, 2, 5))
    adaptation = make_adaptation(dropout=dropout, num_workers=num_workers, microbatch_size=40)
    first = adaptation.predict(model, tasks)
    for _ in range(3):
        torch.rand(7)
        for again, output in zip(adaptation.predict(model, tasks), first, strict=True):
            assert torch.equal(again["logits"], output["logits"])


def test_dropout_is_on_only_if_asked_for(model: MaxLossTagger, tasks: list[Task]) -> None:
    without, with_dropout = (
        make_adaptation(dropout=dropout).predict(model.train(), tasks[:1])[0]["logits"]
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
    make_adaptation(dropout=dropout).predict(model, tasks)
    assert everything(model) == before


@pytest.mark.parametrize("method", ["losses", "forward"])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_leaves_no_trace_after_an_exception(
    model: MaxLossTagger,
    tasks: list[Task],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    dropout: bool,
    num_workers: int,
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
        make_adaptation(dropout=dropout, num_workers=num_workers, microbatch_size=1).predict(model, tasks)
    assert everything(model) == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_in_any_gradient_mode(
    model: MaxLossTagger, tasks: list[Task], context: Callable[[], Any], num_workers: int
) -> None:
    """AllenNLP validates and predicts under `no_grad`; users may do so under `inference_mode`."""
    adaptation = make_adaptation(num_workers=num_workers, microbatch_size=40)
    expected = adaptation.predict(model, tasks)
    before = everything(model)
    with context():
        outputs = adaptation.predict(model, tasks)
        # A batch that is made in inference mode, as a predictor does.
        made_inside = copy.deepcopy(tasks)
        again = adaptation.predict(model, made_inside)
    for found in (outputs, again):
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours["logits"], theirs["logits"])
            assert not ours["logits"].requires_grad
    assert everything(model) == before


def test_metrics_see_the_queries_only(model: MaxLossTagger, tasks: list[Task]) -> None:
    model.get_metrics(reset=True)
    outputs = make_adaptation().predict(model, tasks)
    found = model.get_metrics(reset=True)
    names = model.vocab.get_index_to_token_vocabulary("labels")
    gold = [[names[i] for i in task["query"]["tags"][0].tolist()] for task in tasks]
    model._metric([output["tags"][0] for output in outputs], gold)
    assert found == model._metric.get_metric(reset=True)
    words = sum(map(len, gold))
    assert found["accuracy"] * words == pytest.approx(round(found["accuracy"] * words))


@pytest.mark.parametrize("loss_reduction", ["sentence", "token"])
def test_loss_is_the_querys_own(
    make_tagger: Callable[..., MaxLossTagger],
    make_tasks: Callable[..., list[Task]],
    loss_reduction: str,
) -> None:
    """Also where several queries are labelled in one pass."""
    model, tasks = make_tagger(max_loss_weight=2.0, loss_reduction=loss_reduction), make_tasks(8, 2)
    together = make_adaptation(microbatch_size=10_000).predict(model, tasks)
    alone = [make_adaptation().predict(model, [task])[0] for task in tasks]
    for output, own in zip(together, alone, strict=True):
        assert output["loss"].shape == ()
        assert output["loss"].item() == pytest.approx(own["loss"].item(), rel=1e-9)


def test_queries_without_labels(model: MaxLossTagger, tasks: list[Task]) -> None:
    expected = [output["tags"] for output in make_adaptation().predict(model, tasks)]
    model.get_metrics(reset=True)
    for task in tasks:
        del task["query"]["tags"]
    outputs = make_adaptation().predict(model, tasks)
    assert [output["tags"] for output in outputs] == expected
    assert "loss" not in outputs[0]
    assert model.get_metrics() == {}


def test_no_tasks(model: MaxLossTagger) -> None:
    assert make_adaptation().predict(model, []) == []
