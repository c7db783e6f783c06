"""
The meta-gradient against a reference that shares no code with the package but the model's forward pass: plain
loops over a dictionary of tensors, with the optimisers and the loss written out.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import TensorDict
from allennlp.training.optimizers import AdamOptimizer, SgdOptimizer

from allennlp_metaner.meta import meta_gradient as meta_gradient_module
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradient import FirstOrderMaml, MetaGradient, derived_seed
from allennlp_metaner.meta.parameters import Snapshot, preserved, trainable_parameters
from allennlp_metaner.models import max_loss_tagger
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.tasks.task_field import Task
from allennlp_metaner.training.bert_adam import BertAdam

TOLERANCE = 1e-9
FAR_OFF = 1e-6
LAMBDA = 2.0
Weights = dict[str, torch.Tensor]

# A plain gradient step at 3e-5 moves nothing, so a missing one would go unnoticed.
LEARNING_RATES = {"adam": 3e-5, "bert_adam": 3e-5, "sgd": 0.05}
OPTIMIZERS = {
    "adam": Lazy(AdamOptimizer, lr=LEARNING_RATES["adam"]),
    "bert_adam": Lazy(BertAdam, lr=LEARNING_RATES["bert_adam"]),
    "sgd": Lazy(SgdOptimizer, lr=LEARNING_RATES["sgd"]),
}


class Sgd:
    def __init__(self, lr: float) -> None:
        self.lr = lr

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return weight - self.lr * gradient


class Adam:
    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.state: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = {}

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        first, second, count = self.state.get(name, (0.0 * gradient, 0.0 * gradient, 0))
        first, second, count = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2, count + 1
        self.state[name] = (first, second, count)
        unbiased_first, unbiased_second = first / (1 - 0.9**count), second / (1 - 0.999**count)
        return weight - self.lr * unbiased_first / (unbiased_second.sqrt() + 1e-8)


class ReferenceBertAdam:
    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.state: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        norm = gradient.norm()
        if norm + 1e-6 > 1:
            gradient = gradient / (norm + 1e-6)
        first, second = self.state.get(name, (0.0 * gradient, 0.0 * gradient))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        self.state[name] = (first, second)
        decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.01
        return weight - self.lr * (first / (second.sqrt() + 1e-6) + decay * weight)


REFERENCE_OPTIMIZERS: dict[str, Callable[[float], Any]] = {
    "adam": Adam,
    "bert_adam": ReferenceBertAdam,
    "sgd": Sgd,
}


def reference_loss(model: MaxLossTagger, weights: Weights, batch: TensorDict, weight: float) -> torch.Tensor:
    """Eq. 13, sentence by sentence."""
    inputs = {"tokens": batch["tokens"]}
    logits = torch.func.functional_call(model, weights, kwargs=inputs)["logits"]
    total = torch.zeros((), dtype=logits.dtype)
    for rows, tags, mask in zip(logits, batch["tags"], batch["tokens"]["tokens"]["mask"], strict=True):
        losses = torch.stack([row.logsumexp(0) - row[tag] for row, tag in zip(rows[mask], tags[mask])])  # noqa: B905
        total = total + losses.sum() / len(losses) + weight * losses.max()
    return total


def reference_gradient(model: MaxLossTagger, weights: Weights, batch: TensorDict) -> Weights:
    weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    reference_loss(model, weights, batch, LAMBDA).backward()
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


def reference_adapted(
    model: MaxLossTagger, support: TensorDict, optimizer: str, num_steps: int, scale: float = 1.0
) -> Weights:
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    updates = REFERENCE_OPTIMIZERS[optimizer](LEARNING_RATES[optimizer] * scale)
    for _ in range(num_steps):
        gradient = reference_gradient(model, weights, support)
        weights = {name: updates.step(name, weight, gradient[name]) for name, weight in weights.items()}
    return weights


def reference_meta_gradient(
    model: MaxLossTagger, tasks: list[Task], optimizer: str, num_steps: int, scale: float = 1.0
) -> Weights:
    gradients = []
    for task in tasks:
        adapted = reference_adapted(model, task["support"], optimizer, num_steps, scale)
        gradients.append(reference_gradient(model, adapted, task["query"]))
    return {name: torch.stack([g[name] for g in gradients]).sum(0) for name in gradients[0]}


def relative_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Of whole vectors: the key biases' gradients are zero but for rounding, and cannot be compared alone."""
    a, b = (torch.cat([tensor.detach().flatten() for tensor in tensors]) for tensors in (ours, theirs))
    return ((a - b).norm() / b.norm()).item()


def algorithm(optimizer: str = "adam", num_steps: int = 2, reduction: str = "sum") -> FirstOrderMaml:
    return FirstOrderMaml(InnerLoop(OPTIMIZERS[optimizer], num_steps), reduction)


def difference_from_reference(
    model: MaxLossTagger, tasks: list[Task], optimizer: str, num_steps: int = 2, **options: float
) -> float:
    expected = reference_meta_gradient(model, tasks, optimizer, num_steps, **options)
    parameters = trainable_parameters(model)
    scale = {"learning_rate_scale": options["scale"]} if options else {}
    found = algorithm(optimizer, num_steps)(model, parameters, tasks, seed=0, **scale).gradient
    return relative_difference(found, [expected[name] for name, _ in parameters])


@pytest.fixture
def model(make_tagger: Callable[..., MaxLossTagger]) -> MaxLossTagger:
    return make_tagger(max_loss_weight=LAMBDA).eval()


def values(model: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def identical(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("num_support", [1, 2, 5])
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_equals_the_reference(
    model: MaxLossTagger,
    make_tasks: Callable[[int, int], list[Task]],
    optimizer: str,
    num_support: int,
    num_steps: int,
) -> None:
    tasks = make_tasks(2, num_support)
    assert difference_from_reference(model, tasks, optimizer, num_steps) <= TOLERANCE


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_adapted_parameters_equal_the_reference(
    model: MaxLossTagger,
    make_tasks: Callable[[int, int], list[Task]],
    optimizer: str,
    num_steps: int,
) -> None:
    model.eval()
    (task,) = make_tasks(1, 2)
    expected = reference_adapted(model, task["support"], optimizer, num_steps)
    start = {name: p.detach().clone() for name, p in trainable_parameters(model)}
    InnerLoop(OPTIMIZERS[optimizer], num_steps).adapt(model, trainable_parameters(model), task["support"])
    # Of the steps, not of the parameters, which they hardly change.
    ours = [p.detach() - start[name] for name, p in trainable_parameters(model)]
    theirs = [expected[name] - start[name] for name in start]
    assert relative_difference(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learning_rate_scale(
    model: MaxLossTagger, make_tasks: Callable[[int, int], list[Task]], optimizer: str
) -> None:
    tasks = make_tasks(2, 2)
    assert difference_from_reference(model, tasks, optimizer, scale=0.5) <= TOLERANCE
    # The scale matters, so the comparison above means something.
    model.eval()
    parameters = trainable_parameters(model)
    gradients = [
        algorithm(optimizer)(model, parameters, tasks, seed=0, learning_rate_scale=scale).gradient
        for scale in (0.5, 1.0)
    ]
    assert relative_difference(*gradients) > FAR_OFF


def test_loss_and_reductions(model: MaxLossTagger, make_tasks: Callable[[int, int], list[Task]]) -> None:
    model.eval()
    tasks, parameters = make_tasks(3, 2), trainable_parameters(model)
    expected = sum(
        reference_loss(
            model, reference_adapted(model, task["support"], "sgd", 2), task["query"], LAMBDA
        ).item()
        for task in tasks
    )
    summed = algorithm("sgd", reduction="sum")(model, parameters, tasks, seed=0)
    mean = algorithm("sgd", reduction="mean")(model, parameters, tasks, seed=0)
    assert summed.loss.item() == pytest.approx(expected, rel=TOLERANCE)
    assert mean.loss.item() == pytest.approx(expected / 3, rel=TOLERANCE)
    assert relative_difference([3 * g for g in mean.gradient], summed.gradient) <= TOLERANCE
    assert not summed.loss.requires_grad


def test_unknown_reduction() -> None:
    with pytest.raises(ConfigurationError, match="reduction='max' must be one of sum, mean"):
        FirstOrderMaml(reduction="max")


def test_is_the_default_algorithm() -> None:
    assert isinstance(MetaGradient.from_params(Params({})), FirstOrderMaml)


class TestMutations:
    """The comparison with the reference notices the mistakes that are easily made."""

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_skipped_inner_step(
        self,
        model: MaxLossTagger,
        make_tasks: Callable[[int, int], list[Task]],
        monkeypatch: pytest.MonkeyPatch,
        optimizer: str,
    ) -> None:
        adapt = InnerLoop.adapt

        def one_step_less(self: InnerLoop, *args: Any, **kwargs: Any) -> None:
            self.num_steps -= 1
            adapt(self, *args, **kwargs)
            self.num_steps += 1

        monkeypatch.setattr(InnerLoop, "adapt", one_step_less)
        assert difference_from_reference(model, make_tasks(2, 2), optimizer) > FAR_OFF

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_flipped_sign_of_lambda(
        self,
        model: MaxLossTagger,
        make_tasks: Callable[[int, int], list[Task]],
        monkeypatch: pytest.MonkeyPatch,
        optimizer: str,
    ) -> None:
        correct = max_loss_tagger.max_loss
        monkeypatch.setattr(
            max_loss_tagger,
            "max_loss",
            lambda losses, mask, weight, reduction: correct(losses, mask, -weight, reduction),
        )
        assert difference_from_reference(model, make_tasks(2, 2), optimizer) > FAR_OFF

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_no_restore_between_tasks(
        self,
        model: MaxLossTagger,
        make_tasks: Callable[[int, int], list[Task]],
        monkeypatch: pytest.MonkeyPatch,
        optimizer: str,
    ) -> None:
        class Forgetful(Snapshot):
            def restore(self) -> None:
                pass

        monkeypatch.setattr(meta_gradient_module, "Snapshot", Forgetful)
        assert difference_from_reference(model, make_tasks(2, 2), optimizer) > FAR_OFF


def test_leaves_the_meta_parameters_alone(
    make_tagger: Callable[..., MaxLossTagger], make_tasks: Callable[[int, int], list[Task]]
) -> None:
    model = make_tagger().train()
    before = values(model)
    algorithm("sgd")(model, trainable_parameters(model), make_tasks(3, 2), seed=0)
    assert identical(values(model), before)


@pytest.mark.parametrize("failing", range(1, 7))
def test_leaves_the_meta_parameters_alone_after_an_exception(
    model: MaxLossTagger,
    make_tasks: Callable[[int, int], list[Task]],
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
) -> None:
    loss, calls = model.loss, []

    def failing_loss(**kwargs: Any) -> torch.Tensor:
        calls.append(kwargs)
        if len(calls) == failing:
            raise RuntimeError("out of memory")
        return loss(**kwargs)

    monkeypatch.setattr(model, "loss", failing_loss)
    before, parameters = values(model), trainable_parameters(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        algorithm("sgd")(model, parameters, make_tasks(2, 2), seed=0)
    assert identical(values(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_leaves_gradients_alone(model: MaxLossTagger, make_tasks: Callable[[int, int], list[Task]]) -> None:
    """Several batches may accumulate into one update: the first one's gradient is there during the second."""
    parameters = trainable_parameters(model)
    for _, parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    before = [parameter.grad for _, parameter in parameters]
    algorithm("sgd")(model, parameters, make_tasks(2, 2), seed=0)
    assert all(
        parameter.grad is gradient for (_, parameter), gradient in zip(parameters, before, strict=True)
    )
    assert all(gradient is not None and bool((gradient == 1).all()) for gradient in before)


def test_random_numbers_depend_on_the_seed_alone(
    make_tagger: Callable[..., MaxLossTagger], make_tasks: Callable[[int, int], list[Task]]
) -> None:
    model, tasks = make_tagger().train(), make_tasks(2, 2)
    parameters = trainable_parameters(model)

    def gradient(seed: int) -> list[torch.Tensor]:
        torch.rand(seed + 1)  # Another random state at every call.
        return algorithm()(model, parameters, tasks, seed=seed).gradient

    first = gradient(0)
    assert identical(gradient(0), first)
    assert not identical(gradient(1), first)


def test_tasks_do_not_see_each_other(
    make_tagger: Callable[..., MaxLossTagger], make_tasks: Callable[[int, int], list[Task]]
) -> None:
    """Fresh optimiser state, restored parameters, and a seed by the task's number; with dropout."""
    model, tasks = make_tagger().train(), make_tasks(4, 2)
    parameters, maml = trainable_parameters(model), algorithm()
    pair = maml(model, parameters, [tasks[0], tasks[1]], seed=5).gradient
    first = maml(model, parameters, tasks[:1], seed=5).gradient
    other_pair = maml(model, parameters, [tasks[2], tasks[1]], seed=5).gradient
    other_first = maml(model, parameters, tasks[2:3], seed=5).gradient
    second = [a - b for a, b in zip(pair, first, strict=True)]
    other_second = [a - b for a, b in zip(other_pair, other_first, strict=True)]
    # Subtraction rounds; a leak would be far larger.
    assert relative_difference(other_second, second) <= 1e-12


def test_frozen_parameters_have_no_gradient(
    model: MaxLossTagger, make_tasks: Callable[[int, int], list[Task]]
) -> None:
    parameters = trainable_parameters(model)
    assert len(algorithm()(model, parameters, make_tasks(1, 1), seed=0).gradient) == len(parameters)
    assert len(parameters) < len(list(model.parameters()))
    assert not any("layer.2." in name or "embeddings." in name for name, _ in parameters)


def test_works_without_gradients_enabled(
    model: MaxLossTagger, make_tasks: Callable[[int, int], list[Task]]
) -> None:
    parameters, tasks = trainable_parameters(model), make_tasks(1, 2)
    model.eval()
    expected = algorithm()(model, parameters, tasks, seed=0).gradient
    with torch.no_grad(), preserved(model):
        assert identical(algorithm()(model, parameters, tasks, seed=0).gradient, expected)


def test_derived_seed() -> None:
    parts = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 0, 0), (10, 1), (1, 1)]
    assert len({derived_seed(*part) for part in parts}) == len(parts)
    assert all(0 <= derived_seed(*part) < 2**32 for part in parts)
    # Must not change between versions, or a recovered run would go on with other random numbers.
    assert derived_seed(13370, 0, 0) == 1987630790
