"""The inner loop: optimiser state, learning rate, chunks, workers, and what stays in memory."""

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import TensorDict
from allennlp.training.optimizers import AdamOptimizer, AdamWOptimizer, SgdOptimizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allennlp_metaner.meta import scheduling as scheduling_module
from allennlp_metaner.meta.fast_weights import AdaptedTasks, losses_and_gradients
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import FirstOrderMaml
from allennlp_metaner.meta.scheduling import MEMORY_SHARE
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.microbatches import FIXED_COST, microbatches_of
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients
from allennlp_metaner.nn.task_layers import LinearFunction
from allennlp_metaner.tasks.task_field import Task

LR = 1e-3
RAGGED = (1, 2, 5)
Weights = dict[str, torch.Tensor]
Mover = Callable[..., torch.Tensor]
TaggerMaker = Callable[..., MaxLossTagger]
TaskMaker = Callable[..., list[Task]]


@pytest.fixture
def model(make_tagger: TaggerMaker) -> MaxLossTagger:
    return make_tagger().eval()


@pytest.fixture
def tasks(make_tasks: TaskMaker) -> list[Task]:
    return make_tasks(3, 2)


@pytest.fixture
def moved(adapt: Callable[..., list[Weights]]) -> Mover:
    """How far the support set of `task` moves the parameters, as one vector."""

    def moved(
        loop: InnerLoop, model: MaxLossTagger, task: Task, scale: float = 1.0, **options: Any
    ) -> torch.Tensor:
        (weights,) = adapt(loop, model, [task["support"]], learning_rate_scale=scale, **options)
        return torch.cat([(weights[n] - p.detach()).flatten() for n, p in trainable_parameters(model)])

    return moved


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
    model: MaxLossTagger,
    tasks: list[Task],
    adapt: Callable[..., list[Weights]],
    moved: Mover,
    optimizer: Lazy,
) -> None:
    loop = InnerLoop(optimizer, num_steps=2)
    first = moved(loop, model, tasks[0])
    moved(loop, model, tasks[1])
    assert torch.equal(moved(loop, model, tasks[0]), first)
    assert first.abs().max() > 0
    # Also within a chunk.
    support = tasks[0]["support"]
    one, other = adapt(loop, model, [support, support])
    for name, weight in one.items():
        # Adam makes a step of a gradient that is nothing but rounding.
        torch.testing.assert_close(other[name], weight, rtol=1e-12, atol=1e-10)


def test_state_lasts_from_step_to_step(model: MaxLossTagger, tasks: list[Task], moved: Mover) -> None:
    two_steps = moved(InnerLoop(Lazy(SgdOptimizer, lr=LR, momentum=0.9), 2), model, tasks[0])
    without_momentum = moved(InnerLoop(Lazy(SgdOptimizer, lr=LR), 2), model, tasks[0])
    assert two_steps.norm() > 1.3 * without_momentum.norm()


def test_learning_rate_scale(model: MaxLossTagger, tasks: list[Task], moved: Mover) -> None:
    loop = InnerLoop(Lazy(AdamOptimizer, lr=LR), num_steps=1)
    whole = moved(loop, model, tasks[0])
    # The scale of one call is not that of the next.
    torch.testing.assert_close(moved(loop, model, tasks[0], scale=0.25), 0.25 * whole)
    assert torch.equal(moved(loop, model, tasks[0], scale=0.0), torch.zeros_like(whole))
    assert torch.equal(moved(loop, model, tasks[0]), whole)


def test_learning_rates_of_parameter_groups(model: MaxLossTagger, tasks: list[Task], moved: Mover) -> None:
    groups = [(["classifier"], {"lr": 10 * LR}), (["text_field_embedder"], {})]
    loop = InnerLoop(Lazy(AdamOptimizer, lr=LR, parameter_groups=groups), num_steps=1)
    plain = InnerLoop(Lazy(AdamOptimizer, lr=LR), num_steps=1)
    in_classifier = torch.cat(
        [torch.full((p.numel(),), name.startswith("classifier")) for name, p in trainable_parameters(model)]
    )
    expected = moved(plain, model, tasks[0], scale=0.5)
    expected[in_classifier] *= 10
    torch.testing.assert_close(moved(loop, model, tasks[0], scale=0.5), expected)


def test_one_loop_serves_several_models(make_tagger: TaggerMaker, tasks: list[Task], moved: Mover) -> None:
    loop = InnerLoop(Lazy(AdamOptimizer, lr=LR), num_steps=1)
    models = [make_tagger().eval(), make_tagger().eval()]
    first, second, again = (moved(loop, models[i], tasks[0]) for i in (0, 1, 0))
    assert torch.equal(first, second)
    assert torch.equal(first, again)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_a_model_that_moves(
    make_tagger: TaggerMaker, tasks: list[Task], moved: Mover, num_steps: int
) -> None:
    """To another precision, as to another device: the parameters are the same objects with other contents."""
    loop = InnerLoop(Lazy(AdamOptimizer, lr=LR), num_steps)
    model = make_tagger().eval()
    expected = moved(loop, model, tasks[0])
    single = moved(loop, model.float(), tasks[0])
    assert single.dtype == torch.float32
    # Single precision cannot be exact, but the next result is as exact as the first.
    model.load_state_dict(make_tagger().state_dict())
    model.double()
    model.load_state_dict(make_tagger().state_dict())
    assert torch.equal(moved(loop, model, tasks[0]), expected)


def test_a_copy_of_a_loop_in_use(model: MaxLossTagger, tasks: list[Task]) -> None:
    """The adaptation, and with it its loop, is part of the model."""
    expected = model.adaptation.predict(model, tasks)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for ours, theirs in zip(twin.adaptation.predict(twin, tasks), expected, strict=True):
        assert torch.equal(ours["logits"], theirs["logits"])


@pytest.mark.parametrize("num_steps", [1, 2])
def test_random_numbers_differ_from_task_to_task(
    make_tagger: TaggerMaker, tasks: list[Task], adapt: Callable[..., list[Weights]], num_steps: int
) -> None:
    """With dropout, whether tasks share a chunk or not, and from step to step."""
    model, support = make_tagger().train(), tasks[0]["support"]
    for microbatch_size in (1, 10_000):
        loop = InnerLoop(Lazy(SgdOptimizer, lr=LR), num_steps, microbatch_size)
        first, second = adapt(loop, model, [support, support])
        again, _ = adapt(loop, model, [support, support])
        for name, weight in first.items():
            assert torch.equal(weight, again[name])
            assert not torch.equal(weight, second[name])


def test_max_loss_weight(model: MaxLossTagger, tasks: list[Task], moved: Mover) -> None:
    """Adaptation leaves out the max loss that the model itself has."""
    loop = InnerLoop(Lazy(SgdOptimizer, lr=LR), 1)
    own, same, other = (
        moved(loop, model, tasks[0], max_loss_weight=weight) for weight in (None, model.max_loss_weight, 0.0)
    )
    assert torch.equal(own, same)
    assert not torch.equal(own, other)


@pytest.mark.parametrize("name", ["num_steps", "microbatch_size", "group_size", "num_workers"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_must_be_positive(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}={value} .* at least 1"):
        InnerLoop(**{name: value})


def test_from_params(model: MaxLossTagger, tasks: list[Task], moved: Mover) -> None:
    config = {"optimizer": {"type": "sgd", "lr": LR}, "num_steps": 1, "microbatch_size": 40, "num_workers": 2}
    loop = InnerLoop.from_params(Params(config))
    torch.testing.assert_close(
        moved(loop, model, tasks[0]), moved(InnerLoop(Lazy(SgdOptimizer, lr=LR), 1), model, tasks[0])
    )


def test_executions_that_are_refused(model: MaxLossTagger, tasks: list[Task], moved: Mover) -> None:
    with pytest.raises(ConfigurationError, match=r"execution='fast' .* one of auto, per_task, batched"):
        InnerLoop(execution="fast")
    momentum: Any = Lazy(SgdOptimizer, lr=LR, momentum=0.9)
    with pytest.raises(ConfigurationError, match=r"'batched' .* no steps .*\(SgdOptimizer\): take Adam"):
        moved(InnerLoop(momentum, 1, execution="batched"), model, tasks[0])


@pytest.mark.parametrize(("execution", "expected"), [("auto", 0), ("per_task", 0), ("batched", 1)])
def test_execution(
    model: MaxLossTagger,
    tasks: list[Task],
    monkeypatch: pytest.MonkeyPatch,
    execution: str,
    expected: int,
) -> None:
    """On a CPU, the products of a layer are batched only if asked for: then it is one for all tasks."""
    number, original = [], torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda *a, **k: number.append(len(a[1])) or original(*a, **k))
    loop = InnerLoop.from_params(Params({"execution": execution, "num_steps": 2}))
    FirstOrderMaml(loop)(model, trainable_parameters(model), tasks, seed=0)
    # Two passes with fast weights, each through a classifier and two layers with six products.
    assert number == expected * 2 * (2 * 6 + 1) * [3]


def mapped(
    loop: InnerLoop,
    evaluate: Callable[[AdaptedTasks], Any],
    model: Any,
    supports: list[TensorDict],
    queries: list[TensorDict] | None = None,
    together: bool = True,
) -> list[Any]:
    """For predictions of queries, if there are any, and `together`, or for gradients."""
    parameters = trainable_parameters(model)
    if together and queries is not None:
        return loop.adapt_and_predict(evaluate, model, parameters, supports, queries)
    return loop.adapt_and_differentiate(evaluate, model, parameters, supports, queries or supports, seed=0)


def calls_of(loop: InnerLoop, model: MaxLossTagger, supports: list[TensorDict], **options: Any) -> list[Any]:
    """The tasks of every call of the function that gets the fast weights."""
    found = mapped(loop, lambda adapted: adapted.tasks, model, supports, **options)
    assert all(tasks == of_call for tasks, of_call in found)
    return [tasks for tasks, _ in found]


class TestCalls:
    """What is handed on together, and when."""

    @pytest.fixture
    def tasks(self, make_tasks: TaskMaker) -> list[Task]:
        return make_tasks(8, RAGGED)

    @pytest.fixture
    def supports(self, tasks: list[Task]) -> list[TensorDict]:
        return [task["support"] for task in tasks]

    @pytest.fixture
    def queries(self, tasks: list[Task]) -> list[TensorDict]:
        return [task["query"] for task in tasks]

    @pytest.mark.parametrize("microbatch_size", [1, 40, 10_000])
    def test_every_task_once_and_in_a_fixed_order(
        self, model: MaxLossTagger, supports: list[TensorDict], microbatch_size: int
    ) -> None:
        one, *others = (
            calls_of(InnerLoop(microbatch_size=microbatch_size, num_workers=number), model, supports)
            for number in (1, 3, 3, 3)
        )
        assert sorted(task for tasks in one for task in tasks) == list(range(8))
        assert all(other == one for other in others)

    def test_tasks_come_together_for_a_single_step(
        self, model: MaxLossTagger, supports: list[TensorDict], queries: list[TensorDict]
    ) -> None:
        def sizes(
            num_steps: int, microbatch_size: int, group_size: int | None = None, **options: Any
        ) -> list[int]:
            loop = InnerLoop(num_steps=num_steps, microbatch_size=microbatch_size, group_size=group_size)
            found = calls_of(loop, model, supports, **options)
            assert sorted(task for tasks in found for task in tasks) == list(range(8))
            return sorted(map(len, found))

        alone = [1] * 8
        assert sizes(1, 10_000, queries=queries) == [8]
        assert len(sizes(1, 80, queries=queries)) in range(2, 8)
        assert sizes(1, 1, queries=queries) == alone
        assert sizes(1, 10_000, group_size=3, queries=queries) == [8]
        # Where each task needs memory of its own, in groups.
        for options in ({"num_steps": 2, "queries": queries}, {"num_steps": 1, "together": False}):
            assert sizes(microbatch_size=10_000, **options) == [8]
            assert sizes(microbatch_size=10_000, group_size=3, **options) == [2, 3, 3]
            assert sizes(microbatch_size=10_000, group_size=1, **options) == alone
            assert sizes(microbatch_size=1, group_size=3, **options) == alone

    def test_groups_fit_into_memory(
        self, model: MaxLossTagger, supports: list[TensorDict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        size = sum(p.numel() * p.element_size() for _, p in trainable_parameters(model))
        for num_bytes, expected in ((3 * size, [3, 3, 2]), (size - 1, [1] * 8)):
            # Fast weights and first gradients.
            memory = MEMORY_SHARE * 2 * num_bytes
            monkeypatch.setattr(scheduling_module, "memory_of", lambda device, memory=memory: memory)
            found = calls_of(InnerLoop(microbatch_size=10_000), model, supports)
            assert list(map(len, found)) == expected

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
        microbatch_size=st.integers(1, 400),
    )
    def test_chunks_are_of_like_work(self, lengths: list[int], microbatch_size: int) -> None:
        """All tasks, the longest first, no more subwords than asked for, and an even number."""
        batches = [{"mask": torch.ones(1, length, dtype=torch.bool)} for length in lengths]
        chunks = microbatches_of(batches, batches, microbatch_size, 2)
        found = [lengths[task] for chunk in chunks for task in chunk]
        assert found == sorted(lengths, reverse=True)
        assert sorted(task for chunk in chunks for task in chunk) == list(range(len(lengths)))
        assert all(len(c) == 1 or sum(lengths[task] for task in c) <= microbatch_size for c in chunks)
        assert len(chunks) in (1, len(lengths)) or len(chunks) % 2 == 0
        work = [sum(2 * lengths[task] + FIXED_COST for task in c) for c in chunks]
        largest = 2 * max(lengths) + FIXED_COST
        assert max(work) - min(work) <= 2 * largest

    @pytest.mark.parametrize("microbatch_size", [1, 40, 150])
    def test_chunks_are_no_larger_than_asked_for(
        self,
        model: MaxLossTagger,
        supports: list[TensorDict],
        queries: list[TensorDict],
        monkeypatch: pytest.MonkeyPatch,
        microbatch_size: int,
    ) -> None:
        """Unless a single task is larger."""
        losses, passes = model.losses, []

        def spy(batches: Any, max_loss_weight: Any = None) -> torch.Tensor:
            masks = [batch["tokens"]["tokens"]["wordpiece_mask"] for batch in batches]
            passes.append((len(batches), sum(int(mask.sum()) for mask in masks)))
            return losses(batches, max_loss_weight)

        monkeypatch.setattr(model, "losses", spy)
        for options in ({}, {"queries": queries}):
            passes.clear()
            calls_of(InnerLoop(num_steps=1, microbatch_size=microbatch_size), model, supports, **options)
            assert sum(number for number, _ in passes) == 8
            assert all(size <= microbatch_size or number == 1 for number, size in passes)

    @pytest.mark.parametrize("num_steps", [1, 2])
    @pytest.mark.parametrize("together", [True, False])
    def test_queries_and_seeds(
        self,
        model: MaxLossTagger,
        supports: list[TensorDict],
        queries: list[TensorDict],
        num_steps: int,
        together: bool,
    ) -> None:
        """The function gets the queries of its tasks, and a seed for each, and may run them."""

        def losses(adapted: AdaptedTasks) -> torch.Tensor:
            assert len({*adapted.seeds}) == len(adapted.tasks)
            for task, query in zip(adapted.tasks, adapted.queries, strict=True):
                assert torch.equal(query["tags"], queries[task]["tags"])
            with torch.no_grad():
                return model.losses(adapted.queries)

        found = mapped(InnerLoop(num_steps=num_steps), losses, model, supports, queries, together)
        with torch.no_grad():
            expected = model.losses(queries)
        for tasks, losses in found:
            torch.testing.assert_close(losses, expected[tasks], rtol=1e-12, atol=0.0)

    def test_no_tasks(self, model: MaxLossTagger) -> None:
        assert calls_of(InnerLoop(), model, []) == []


class TestThreads:
    @pytest.fixture
    def supports(self, make_tasks: TaskMaker) -> list[TensorDict]:
        return [task["support"] for task in make_tasks(6, 1)]

    @pytest.fixture(autouse=True)
    def number_stays(self, threads: Callable[[int], None]) -> Iterator[None]:
        """PyTorch has as many threads afterwards as before, come what may."""
        threads(5)
        yield
        assert torch.get_num_threads() == 5

    @pytest.mark.parametrize(("num_workers", "expected"), [(1, 5), (2, 2), (3, 1), (8, 1), (None, 1)])
    def test_workers_share_the_threads(
        self, model: MaxLossTagger, supports: list[TensorDict], num_workers: int | None, expected: int
    ) -> None:
        loop = InnerLoop(microbatch_size=1, num_workers=num_workers)
        found = mapped(loop, lambda adapted: torch.get_num_threads(), model, supports)
        assert [number for _, number in found] == [expected] * 6

    @pytest.mark.parametrize(("num_workers", "failing"), [(1, 0), (2, 3), (3, 0), (3, 5)])
    def test_an_exception_reaches_the_caller(
        self,
        model: MaxLossTagger,
        supports: list[TensorDict],
        adapt: Callable[..., list[Weights]],
        num_workers: int,
        failing: int,
    ) -> None:
        loop = InnerLoop(microbatch_size=1, num_workers=num_workers)
        expected = adapt(loop, model, supports)

        def use(adapted: AdaptedTasks) -> None:
            if adapted.tasks == [failing]:
                raise KeyError(failing)

        with pytest.raises(KeyError, match=str(failing)):
            mapped(loop, use, model, supports)
        # Whoever goes on with the same loop finds all of its workers.
        for ours, theirs in zip(adapt(loop, model, supports), expected, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_no_more_chunks_at_the_same_time_than_workers(
        self, model: MaxLossTagger, supports: list[TensorDict]
    ) -> None:
        present: list[int] = []
        most: list[int] = []

        def use(adapted: AdaptedTasks) -> None:
            present.append(1)
            most.append(len(present))
            torch.randn(200, 200) @ torch.randn(200, 200)
            present.pop()

        for num_workers in (1, 2):
            most.clear()
            loop = InnerLoop(microbatch_size=1, num_workers=num_workers)
            mapped(loop, use, model, supports)
            assert max(most) <= num_workers


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list["weakref.ref[PerTaskGradients]"]]:
    """
    Weak references to all passes of a test. The garbage collector is off: what is not freed at once takes
    memory until it runs.
    """
    found: list[weakref.ref[PerTaskGradients]] = []

    class Noted(PerTaskGradients):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            found.append(weakref.ref(self))

    monkeypatch.setattr("allennlp_metaner.meta.functional.PerTaskGradients", Noted)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


def num_tensors() -> int:
    types = Counter(map(type, gc.get_objects()))
    return sum(number for kind, number in types.items() if issubclass(kind, torch.Tensor))


class TestMemory:
    """Nothing of a pass stays: neither its activations nor any other tensor."""

    @pytest.mark.parametrize(
        ("frozen_layers", "num_workers", "num_steps"), [(3, 1, 1), (3, 2, 2), (3, 1, 3), (None, 2, 2)]
    )
    def test_of_the_meta_gradient(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        passes: list["weakref.ref[PerTaskGradients]"],
        frozen_layers: int | None,
        num_workers: int,
        num_steps: int,
    ) -> None:
        """With tasks that share a pass, and with tasks that cannot."""
        model, tasks = make_tagger(frozen_layers=frozen_layers).train(), make_tasks(4, RAGGED)
        maml = FirstOrderMaml(InnerLoop(num_steps=num_steps, microbatch_size=80, num_workers=num_workers))
        parameters = trainable_parameters(model)
        maml(model, parameters, tasks, seed=0)
        before = num_tensors()
        for seed in range(2):
            maml(model, parameters, tasks, seed=seed)
            assert [recording() for recording in passes if recording() is not None] == []
        num_chunks = 4 if frozen_layers is None else 2
        assert len(passes) >= 3 * num_chunks * (num_steps + 1)
        assert num_tensors() == before

    @pytest.mark.parametrize(
        ("frozen_layers", "num_workers", "num_steps", "dropout"),
        [(3, 1, 1, False), (3, 2, 1, True), (3, 2, 2, False), (None, 2, 1, False)],
    )
    def test_of_the_adaptation(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        passes: list["weakref.ref[PerTaskGradients]"],
        dropout: bool,
        num_workers: int,
        num_steps: int,
        frozen_layers: int | None,
    ) -> None:
        model, tasks = make_tagger(frozen_layers=frozen_layers), make_tasks(4, RAGGED)
        loop = InnerLoop(num_steps=num_steps, microbatch_size=80, num_workers=num_workers)
        adaptation = TestTimeAdaptation(loop, dropout=dropout)
        adaptation.predict(model, tasks)
        before = num_tensors()
        for _ in range(2):
            adaptation.predict(model, tasks)
            assert [recording() for recording in passes if recording() is not None] == []
        assert passes
        assert num_tensors() == before

    def test_would_be_noticed(
        self,
        model: MaxLossTagger,
        tasks: list[Task],
        passes: list["weakref.ref[PerTaskGradients]"],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Kept with its graph, the input of a layer leads back to the gradients."""
        original = LinearFunction.backward

        def with_graph(ctx: Any, output_gradient: torch.Tensor) -> Any:
            keep, inputs = ctx.keep, ctx.saved_tensors[0]
            ctx.keep = lambda _, own: keep(inputs, own)
            return original(ctx, output_gradient)

        monkeypatch.setattr(LinearFunction, "backward", with_graph)
        FirstOrderMaml()(model, trainable_parameters(model), tasks, seed=0)
        assert any(recording() is not None for recording in passes)


def test_gradient_is_that_of_the_support_set(
    model: MaxLossTagger, tasks: list[Task], moved: Mover, reference: SimpleNamespace
) -> None:
    """One step of plain gradient descent."""
    weights = {name: p.detach().clone() for name, p in trainable_parameters(model)}
    expected = reference.gradient(model, weights, tasks[0]["support"], model.max_loss_weight)
    found = moved(InnerLoop(Lazy(SgdOptimizer, lr=LR), 1), model, tasks[0])
    theirs = torch.cat([expected[name].flatten() for name in weights])
    torch.testing.assert_close(found, -LR * theirs, rtol=1e-9, atol=1e-12)


def test_hooks_see_one_pass_at_a_time(model: MaxLossTagger, tasks: list[Task]) -> None:
    """AllenNLP's confidence checks read the order of layers from hooks on the first batch."""

    def run() -> list[str]:
        order: list[str] = []
        handles = [
            module.register_forward_hook(lambda *_, name=name: order.append(name))
            for name, module in model.named_modules()
        ]
        loop = InnerLoop(num_steps=2, microbatch_size=1, num_workers=3)
        mapped(loop, lambda _: None, model, [task["support"] for task in tasks * 4])
        for handle in handles:
            handle.remove()
        return order

    assert run() == run()


class Skipping(torch.nn.Module):
    """Some batches pass a layer by."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (torch.nn.Linear(4, 4).double() for _ in range(2))

    def prepared(self, batches: Any) -> Any:
        return batches

    def num_packed_rows(self, batches: Any) -> Any:
        return []

    def losses(self, batches: Any, max_loss_weight: float | None = None) -> torch.Tensor:
        inputs = torch.cat([batch["inputs"] for batch in batches])
        hidden = self.first(inputs).tanh()
        if not batches[0]["skips"][0]:
            hidden = hidden + self.second(hidden)
        sizes = [len(batch["inputs"]) for batch in batches]
        return torch.stack([part.square().sum() for part in hidden.split(sizes)])


def test_parameters_that_the_query_does_not_use() -> None:
    """Nobody asks for their last step; the next group starts afresh all the same."""
    torch.manual_seed(0)
    model = Skipping()

    def batch(skips: bool) -> dict[str, Any]:
        mask = torch.ones(2, 1, dtype=torch.bool)
        return {"inputs": torch.randn(2, 4).double(), "skips": [skips] * 2, "mask": mask}

    supports, queries = [batch(False) for _ in range(2)], [batch(True), batch(False)]

    def losses(tasks: list[int]) -> list[float]:
        loop = InnerLoop(Lazy(AdamOptimizer, lr=0.05), microbatch_size=10_000, group_size=1)
        parameters = trainable_parameters(model)
        found = mapped(
            loop,
            lambda adapted: losses_and_gradients(
                model, adapted.queries, parameters, adapted.seeds, adapted.weights
            )[0].item(),
            model,
            [supports[task] for task in tasks],
            [queries[task] for task in tasks],
            together=False,
        )
        return [loss for _, loss in sorted(found)]

    assert losses([0, 1])[1] == pytest.approx(losses([1])[0], rel=1e-12)
