"""The inner loop: optimiser state, learning rate, and gradients."""

from collections.abc import Callable

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import AdamOptimizer, AdamWOptimizer, SgdOptimizer

from allennlp_metaner.meta.inner_loop import InnerLoop, gradients
from allennlp_metaner.meta.parameters import preserved, trainable_parameters
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.tasks.task_field import Task

LR = 1e-3


@pytest.fixture
def model(make_tagger: Callable[..., MaxLossTagger]) -> MaxLossTagger:
    return make_tagger().eval()


@pytest.fixture
def tasks(make_tasks: Callable[[int, int], list[Task]]) -> list[Task]:
    return make_tasks(3, 2)


def moved(loop: InnerLoop, model: MaxLossTagger, task: Task, scale: float = 1.0) -> torch.Tensor:
    """How far the support set of `task` moves the parameters, as one vector; the model stays."""
    parameters = trainable_parameters(model)
    with preserved(model):
        before = torch.cat([p.detach().flatten() for _, p in parameters])
        loop.adapt(model, parameters, task["support"], learning_rate_scale=scale)
        return torch.cat([p.detach().flatten() for _, p in parameters]) - before


@pytest.mark.parametrize(
    "optimizer",
    [
        Lazy(AdamOptimizer, lr=LR),
        Lazy(AdamWOptimizer, lr=LR),
        Lazy(SgdOptimizer, lr=LR, momentum=0.9),
    ],
    ids=["adam", "adamw", "momentum"],
)
def test_optimizer_state_is_fresh_for_every_task(
    model: MaxLossTagger, tasks: list[Task], optimizer: Lazy
) -> None:
    loop = InnerLoop(optimizer, num_steps=2)
    first = moved(loop, model, tasks[0])
    moved(loop, model, tasks[1])
    assert torch.equal(moved(loop, model, tasks[0]), first)
    assert first.abs().max() > 0


def test_state_lasts_from_step_to_step(model: MaxLossTagger, tasks: list[Task]) -> None:
    two_steps = moved(InnerLoop(Lazy(SgdOptimizer, lr=LR, momentum=0.9), 2), model, tasks[0])
    without_momentum = moved(InnerLoop(Lazy(SgdOptimizer, lr=LR), 2), model, tasks[0])
    assert two_steps.norm() > 1.3 * without_momentum.norm()


def test_learning_rate_scale(model: MaxLossTagger, tasks: list[Task]) -> None:
    loop = InnerLoop(Lazy(AdamOptimizer, lr=LR), num_steps=1)
    whole = moved(loop, model, tasks[0])
    # The scale of one call is not that of the next.
    torch.testing.assert_close(moved(loop, model, tasks[0], scale=0.25), 0.25 * whole)
    assert torch.equal(moved(loop, model, tasks[0], scale=0.0), torch.zeros_like(whole))
    assert torch.equal(moved(loop, model, tasks[0]), whole)


def test_learning_rates_of_parameter_groups(model: MaxLossTagger, tasks: list[Task]) -> None:
    groups = [(["classifier"], {"lr": 10 * LR}), (["text_field_embedder"], {})]
    loop = InnerLoop(Lazy(AdamOptimizer, lr=LR, parameter_groups=groups), num_steps=1)
    plain = InnerLoop(Lazy(AdamOptimizer, lr=LR), num_steps=1)
    in_classifier = torch.cat(
        [torch.full((p.numel(),), name.startswith("classifier")) for name, p in trainable_parameters(model)]
    )
    expected = moved(plain, model, tasks[0], scale=0.5)
    expected[in_classifier] *= 10
    torch.testing.assert_close(moved(loop, model, tasks[0], scale=0.5), expected)


def test_one_loop_serves_several_models(make_tagger: Callable[..., MaxLossTagger], tasks: list[Task]) -> None:
    loop = InnerLoop(Lazy(AdamOptimizer, lr=LR), num_steps=1)
    models = [make_tagger().eval(), make_tagger().eval()]
    first, second, again = (moved(loop, models[i], tasks[0]) for i in (0, 1, 0))
    assert torch.equal(first, second)
    assert torch.equal(first, again)


def test_max_loss_weight(model: MaxLossTagger, tasks: list[Task]) -> None:
    """Adaptation leaves out the max loss that the model itself has."""
    parameters, loop = trainable_parameters(model), InnerLoop(Lazy(SgdOptimizer, lr=LR), 1)
    moves = []
    for weight in (None, 2.0, 0.0):
        with preserved(model) as snapshot:
            loop.adapt(model, parameters, tasks[0]["support"], max_loss_weight=weight)
            moves.append(torch.cat([p.detach().flatten().clone() for _, p in parameters]))
            snapshot.restore()
    assert torch.equal(moves[0], moves[1])
    assert not torch.equal(moves[0], moves[2])


@pytest.mark.parametrize("num_steps", [0, -1])
def test_num_steps_must_be_positive(num_steps: int) -> None:
    with pytest.raises(ConfigurationError, match=f"num_steps={num_steps} .* at least 1"):
        InnerLoop(num_steps=num_steps)


def test_from_params(model: MaxLossTagger, tasks: list[Task]) -> None:
    loop = InnerLoop.from_params(Params({"optimizer": {"type": "sgd", "lr": LR}, "num_steps": 1}))
    torch.testing.assert_close(
        moved(loop, model, tasks[0]), moved(InnerLoop(Lazy(SgdOptimizer, lr=LR), 1), model, tasks[0])
    )


def test_gradients_are_zero_for_unused_parameters() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    found = gradients((3 * used).sum(), [("used", used), ("unused", unused)])
    assert torch.equal(found[0], torch.full((2,), 3.0))
    assert torch.equal(found[1], torch.zeros(3))
    assert used.grad is None
