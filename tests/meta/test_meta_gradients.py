"""The meta-gradient, and the parameters it is taken at, against the reference."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import (
    AdamOptimizer,
    AdamWOptimizer,
    RmsPropOptimizer,
    SgdOptimizer,
)

from allennlp_metaner.meta import meta_gradients as module
from allennlp_metaner.meta import scheduling as scheduling_module
from allennlp_metaner.meta.fast_weights import FastWeights
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.inner_optimizers import InnerOptimizer
from allennlp_metaner.meta.meta_gradients import FirstOrderMaml, MetaGradient
from allennlp_metaner.meta.stacked_weights import WorkerState
from allennlp_metaner.models import max_loss_tagger
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.parameters import preserved, trainable_parameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients
from allennlp_metaner.nn.randomness import derived_seed
from allennlp_metaner.tasks.task_field import Task

TOLERANCE = 1e-9
FAR_OFF = 1e-6
LAMBDA = 2.0
OPTIMIZERS = ("adam", "bert_adam", "sgd")
RAGGED = (1, 2, 5)
Weights = dict[str, torch.Tensor]
TaskMaker = Callable[..., list[Task]]
TaggerMaker = Callable[..., MaxLossTagger]

WAYS = [
    (1, None, 1),
    (1, None, 3),
    (40, None, 2),
    (40, 1, 3),
    (100, 2, 2),
    (10_000, None, 1),
    (10_000, 3, 1),
    (10_000, 1, 2),
]
"""Sizes of chunks and groups, and numbers of workers."""

in_both_ways = pytest.mark.parametrize("execution", ["per_task", "batched"])


@pytest.fixture
def model(make_tagger: TaggerMaker) -> MaxLossTagger:
    return make_tagger(max_loss_weight=LAMBDA).eval()


@pytest.fixture
def algorithm(reference: SimpleNamespace, execution: str) -> Callable[..., FirstOrderMaml]:
    def make(
        optimizer: str = "adam", num_steps: int = 2, reduction: str = "sum", **options: Any
    ) -> FirstOrderMaml:
        options.setdefault("execution", execution)
        return FirstOrderMaml(InnerLoop(reference.lazy(optimizer), num_steps, **options), reduction)

    return make


@pytest.fixture
def difference_from_reference(
    reference: SimpleNamespace, algorithm: Callable[..., FirstOrderMaml]
) -> Callable[..., float]:
    """How far the meta-gradient is from the reference's."""

    def difference(
        model: MaxLossTagger,
        tasks: list[Task],
        optimizer: str = "adam",
        num_steps: int = 2,
        scale: float = 1.0,
        **options: Any,
    ) -> float:
        expected = reference.meta_gradient(
            model, tasks, lambda: reference.updates(optimizer, scale), num_steps
        )
        found = algorithm(optimizer, num_steps, **options)(
            model, trainable_parameters(model), tasks, seed=0, learning_rate_scale=scale
        )
        return off(model, found.gradient, expected)

    def off(model: MaxLossTagger, found: list[torch.Tensor], expected: Weights) -> float:
        return reference.relative_difference(found, [expected[n] for n, _ in trainable_parameters(model)])

    return difference


@pytest.fixture
def difference_of_steps(reference: SimpleNamespace) -> Callable[..., float]:
    """Of the steps, not of the parameters, which they hardly change."""

    def difference(model: MaxLossTagger, ours: Weights, theirs: Weights) -> float:
        start = {name: p.detach() for name, p in trainable_parameters(model)}
        assert ours.keys() == theirs.keys() == start.keys()
        steps = ([weights[name] - start[name] for name in start] for weights in (ours, theirs))
        return reference.relative_difference(*steps)

    return difference


def values(model: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def identical(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def added_up(expected: Sequence[tuple[Weights, Weights]], parameters: Any) -> list[torch.Tensor]:
    """The meta-gradient of the tasks, of each of which there are the adapted parameters and the gradient."""
    return [torch.stack([gradient[name] for _, gradient in expected]).sum(0) for name, _ in parameters]


@pytest.fixture
def check(
    model: MaxLossTagger,
    reference: SimpleNamespace,
    adapt: Callable[..., list[Weights]],
    difference_of_steps: Callable[..., float],
) -> Callable[..., None]:
    """Compares the adapted parameters of each task, and the meta-gradient of all, with plain loops."""

    def check(loop: InnerLoop, tasks: list[Task], make_updates: Callable[[], Any]) -> None:
        parameters, expected = trainable_parameters(model), []
        for task, found in zip(tasks, adapt(loop, model, [task["support"] for task in tasks]), strict=True):
            weights = reference.adapted(model, task["support"], make_updates(), loop.num_steps)
            assert difference_of_steps(model, found, weights) <= TOLERANCE
            expected.append((weights, reference.gradient(model, weights, task["query"])))
        gradient = FirstOrderMaml(loop)(model, parameters, tasks, seed=0).gradient
        assert reference.relative_difference(gradient, added_up(expected, parameters)) <= TOLERANCE

    return check


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3])
@in_both_ways
def test_equals_the_reference(
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    check: Callable[..., None],
    optimizer: str,
    num_steps: int,
    execution: str,
) -> None:
    """Of one, two and five support sentences."""
    loop = InnerLoop(reference.lazy(optimizer), num_steps, execution=execution)
    check(loop, make_tasks(3, RAGGED), lambda: reference.updates(optimizer))


class OwnDropout(torch.nn.Module):
    """Written out, as in some encoders."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * torch.empty_like(inputs).bernoulli_(0.8)


class TestManyTasks:
    """Any number of tasks with support sets of different sizes, in any chunks, by any number of workers."""

    NUM_STEPS = 2

    @pytest.fixture(scope="class")
    def model(self, make_tagger: TaggerMaker) -> MaxLossTagger:
        return make_tagger(max_loss_weight=LAMBDA).eval()

    @pytest.fixture(scope="class")
    def tasks(self, make_tasks: TaskMaker) -> list[Task]:
        return make_tasks(5, RAGGED)

    @pytest.fixture(scope="class")
    def expected(
        self, model: MaxLossTagger, tasks: list[Task], reference: SimpleNamespace
    ) -> list[tuple[Weights, Weights]]:
        """Each task's adapted parameters and gradient."""
        found = []
        for task in tasks:
            weights = reference.adapted(model, task["support"], reference.updates("adam"), self.NUM_STEPS)
            found.append((weights, reference.gradient(model, weights, task["query"])))
        return found

    @pytest.mark.parametrize(("microbatch_size", "group_size", "num_workers"), WAYS)
    @in_both_ways
    def test_gradient(
        self,
        model: MaxLossTagger,
        tasks: list[Task],
        expected: list[tuple[Weights, Weights]],
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
        microbatch_size: int,
        group_size: int | None,
        num_workers: int,
    ) -> None:
        maml = algorithm(
            "adam",
            self.NUM_STEPS,
            microbatch_size=microbatch_size,
            group_size=group_size,
            num_workers=num_workers,
        )
        parameters = trainable_parameters(model)
        for num_tasks in (1, 2, 5):
            found = maml(model, parameters, tasks[:num_tasks], seed=0).gradient
            theirs = added_up(expected[:num_tasks], parameters)
            assert reference.relative_difference(found, theirs) <= TOLERANCE

    @pytest.mark.parametrize(("microbatch_size", "group_size", "num_workers"), WAYS)
    @in_both_ways
    def test_adapted_parameters(
        self,
        model: MaxLossTagger,
        tasks: list[Task],
        expected: list[tuple[Weights, Weights]],
        reference: SimpleNamespace,
        adapt: Callable[..., list[Weights]],
        difference_of_steps: Callable[..., float],
        microbatch_size: int,
        group_size: int | None,
        num_workers: int,
        execution: str,
    ) -> None:
        loop = InnerLoop(
            reference.lazy("adam"),
            self.NUM_STEPS,
            execution=execution,
            microbatch_size=microbatch_size,
            group_size=group_size,
            num_workers=num_workers,
        )
        for num_tasks in (1, 2, 5):
            found = adapt(loop, model, [task["support"] for task in tasks[:num_tasks]])
            for ours, (theirs, _) in zip(found, expected, strict=False):
                assert difference_of_steps(model, ours, theirs) <= TOLERANCE

    def test_more_tasks_than_are_added_up_at_once(
        self,
        model: MaxLossTagger,
        tasks: list[Task],
        expected: list[tuple[Weights, Weights]],
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "TASKS_ADDED_UP", 3)
        parameters = trainable_parameters(model)
        found = algorithm("adam", self.NUM_STEPS)(model, parameters, tasks, seed=0)
        theirs = added_up(expected, parameters)
        assert reference.relative_difference(found.gradient, theirs) <= TOLERANCE
        losses = [
            reference.loss(model, weights, task["query"], LAMBDA).item()
            for task, (weights, _) in zip(tasks, expected, strict=True)
        ]
        assert found.loss.item() == pytest.approx(sum(losses), rel=TOLERANCE)

    @pytest.mark.parametrize(
        ("dropout", "microbatch_size", "num_threads"),
        [(True, 1, 1), (True, 40, 1), (False, 1, 1), (False, 40, 1), (True, 40, 3), (False, 1, 3)],
    )
    def test_the_number_of_workers_does_not_matter(
        self,
        make_tagger: TaggerMaker,
        tasks: list[Task],
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
        threads: Callable[[int], None],
        dropout: bool,
        microbatch_size: int,
        num_threads: int,
    ) -> None:
        """Bit for bit, if each has one thread; in several, PyTorch adds up numbers in another order."""
        model = make_tagger().train(dropout)
        parameters = trainable_parameters(model)
        threads(num_threads)
        results = [
            algorithm(microbatch_size=microbatch_size, num_workers=num_workers)(
                model, parameters, tasks, seed=3
            )
            for num_workers in (1, 2, 3)
        ]
        for loss, gradient in results[1:]:
            assert loss.item() == pytest.approx(results[0].loss.item(), rel=1e-12)
            assert reference.relative_difference(gradient, results[0].gradient) <= 1e-10
            if num_threads == 1:
                assert torch.equal(loss, results[0].loss)
                assert identical(gradient, results[0].gradient)

    def test_same_seed_same_bits(
        self, make_tagger: TaggerMaker, tasks: list[Task], algorithm: Callable[..., FirstOrderMaml]
    ) -> None:
        """From run to run, with dropout, whatever the workers' timing."""
        model = make_tagger().train()
        parameters = trainable_parameters(model)
        first, *others = (
            algorithm(microbatch_size=20, num_workers=3)(model, parameters, tasks, seed=3) for _ in range(4)
        )
        for loss, gradient in others:
            assert torch.equal(loss, first.loss)
            assert identical(gradient, first.gradient)

    def test_a_dropout_of_the_models_own(
        self,
        make_tagger: TaggerMaker,
        tasks: list[Task],
        algorithm: Callable[..., FirstOrderMaml],
        threads: Callable[[int], None],
    ) -> None:
        """It draws from PyTorch's global generator, which is the same for all threads."""
        model = make_tagger().train()
        model.dropout = OwnDropout()
        parameters = trainable_parameters(model)
        threads(1)

        def run(maml: FirstOrderMaml, seed: int) -> list[torch.Tensor]:
            torch.rand(5)
            state = torch.get_rng_state()
            gradient = maml(model, parameters, tasks, seed=seed).gradient
            assert torch.equal(torch.get_rng_state(), state)
            return gradient

        first = run(algorithm(microbatch_size=20, num_workers=1), 3)
        assert not identical(run(algorithm(microbatch_size=20, num_workers=1), 4), first)
        for num_workers in (1, 2, 3):
            maml = algorithm(microbatch_size=20, num_workers=num_workers)
            assert all(identical(run(maml, 3), first) for _ in range(3))

    def test_little_memory(
        self,
        model: MaxLossTagger,
        tasks: list[Task],
        expected: list[tuple[Weights, Weights]],
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Where memory is scarce: first gradients are computed twice, task by task; no memory is kept."""
        kept = []
        begin = InnerOptimizer.begin

        def noted(self: InnerOptimizer, scale: float) -> None:
            kept.append(self.keeps_gradients)
            begin(self, scale)

        monkeypatch.setattr(InnerOptimizer, "begin", noted)
        parameters = trainable_parameters(model)
        theirs = added_up(expected, parameters)
        for memory in (10**12, 1000):
            monkeypatch.setattr(scheduling_module, "memory_of", lambda device, memory=memory: memory)
            maml = algorithm("adam", self.NUM_STEPS)
            found = maml(model, parameters, tasks, seed=0).gradient
            assert reference.relative_difference(found, theirs) <= TOLERANCE
            for state in maml._inner_loop._states:
                assert bool(state.buffers._pieces) == (memory > 1000)
        assert kept[0] is True and kept[-1] is False and kept == sorted(kept, reverse=True)

    @in_both_ways
    def test_single_precision(
        self,
        make_tagger: TaggerMaker,
        tasks: list[Task],
        expected: list[tuple[Weights, Weights]],
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
    ) -> None:
        model = make_tagger(max_loss_weight=LAMBDA).eval().float()
        parameters = trainable_parameters(model)
        found = algorithm("adam", self.NUM_STEPS)(model, parameters, tasks, seed=0).gradient
        assert all(gradient.dtype == torch.float32 for gradient in found)
        theirs = added_up(expected, parameters)
        assert reference.relative_difference([g.double() for g in found], theirs) <= 1e-5


GENERIC = {
    "rmsprop": (RmsPropOptimizer, torch.optim.RMSprop, {"lr": 1e-4}),
    "momentum": (SgdOptimizer, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "nesterov": (SgdOptimizer, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "sgd_decay": (SgdOptimizer, torch.optim.SGD, {"lr": 0.05, "weight_decay": 0.1}),
    "adamw": (AdamWOptimizer, torch.optim.AdamW, {"lr": 1e-4, "weight_decay": 0.1}),
    # With a smaller eps, the decay of the second step would make rounding errors of the first one visible:
    # where a gradient is zero but for these, Adam steps by error / eps.
    "adam_l2": (AdamOptimizer, torch.optim.Adam, {"lr": 1e-4, "weight_decay": 0.1, "eps": 1e-3}),
    "amsgrad": (AdamOptimizer, torch.optim.Adam, {"lr": 1e-4, "amsgrad": True}),
    "betas": (AdamOptimizer, torch.optim.Adam, {"lr": 1e-4, "betas": (0.5, 0.9), "eps": 1e-3}),
}
STACKS = ("sgd_decay", "adamw", "adam_l2", "betas")


@pytest.mark.parametrize(
    ("optimizer", "num_steps", "execution"),
    [(name, num_steps, "per_task") for name in GENERIC for num_steps in (1, 3)]
    + [(name, num_steps, "batched") for name in STACKS for num_steps in (1, 3)],
)
def test_other_optimizers_equal_pytorchs_own(
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    check: Callable[..., None],
    optimizer: str,
    num_steps: int,
    execution: str,
) -> None:
    ours, theirs, options = GENERIC[optimizer]
    loop = InnerLoop(Lazy(ours, **options), num_steps, execution=execution)
    check(loop, make_tasks(2, (2, 1)), lambda: reference.of_pytorch(theirs, **options))


@in_both_ways
def test_parameter_groups(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    adapt: Callable[..., list[Weights]],
    difference_of_steps: Callable[..., float],
    execution: str,
) -> None:
    """Each with a learning rate and a weight decay of its own."""
    options = {"classifier": {"lr": 1e-2, "weight_decay": 0.3}, r"layer\.3.*bias": {"lr": 1e-3}, "": {}}
    defaults = {"lr": 1e-4, "weight_decay": 0.0}

    class Grouped:
        def __init__(self) -> None:
            self.updates = [
                reference.of_pytorch(torch.optim.AdamW, **defaults | own) for own in options.values()
            ]

        def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
            number = 0 if "classifier" in name else 1 if "layer.3" in name and "bias" in name else 2
            return self.updates[number].step(name, weight, gradient)

    groups = [([regex], own) for regex, own in options.items() if regex]
    optimizer = Lazy(AdamWOptimizer, **defaults, parameter_groups=groups)
    loop = InnerLoop(optimizer, num_steps=3, execution=execution)
    supports = [task["support"] for task in make_tasks(2, 2)]
    for support, found in zip(supports, adapt(loop, model, supports), strict=True):
        expected = reference.adapted(model, support, Grouped(), 3)
        assert difference_of_steps(model, found, expected) <= TOLERANCE


@in_both_ways
class TestFallbacks:
    """Models whose tasks cannot share a pass, and layers that the fast path does not know."""

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_trainable_embeddings(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        difference_from_reference: Callable[..., float],
        optimizer: str,
    ) -> None:
        model = make_tagger(max_loss_weight=LAMBDA, frozen_layers=None).eval()
        assert difference_from_reference(model, make_tasks(3, RAGGED), optimizer, 3) <= TOLERANCE

    @pytest.mark.parametrize("frozen_layers", [0, 3])
    def test_sentences_longer_than_the_window(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        difference_from_reference: Callable[..., float],
        frozen_layers: int,
    ) -> None:
        model = make_tagger(
            max_loss_weight=LAMBDA, frozen_layers=frozen_layers, embedder={"max_length": 9, "overlap": 3}
        ).eval()
        tasks = make_tasks(8, RAGGED)
        lengths = [task["support"]["tokens"]["tokens"]["token_ids"].size(1) for task in tasks]
        # Some tasks have such sentences, and some have none.
        assert min(lengths) <= 9 < max(lengths)
        assert difference_from_reference(model, tasks) <= TOLERANCE

    @pytest.mark.parametrize("num_steps", [1, 2])
    def test_only_a_query_is_longer_than_the_window(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        difference_from_reference: Callable[..., float],
        num_steps: int,
    ) -> None:
        """The support sets share their passes, and the queries cannot."""

        def length(sentence: Any) -> int:
            return sentence["tokens"]["tokens"]["token_ids"].size(1)

        sentences = sorted((task["support"] for task in make_tasks(8, 1)), key=length)
        tasks = [
            {"support": sentence, "query": query}
            for sentence, query in zip(sentences[:3], [*sentences[1:3], sentences[-1]], strict=True)
        ]
        longest = length(sentences[2])
        assert longest < length(sentences[-1])
        embedder = {"max_length": longest, "overlap": 2}
        model = make_tagger(max_loss_weight=LAMBDA, embedder=embedder).eval()
        assert difference_from_reference(model, tasks, num_steps=num_steps) <= TOLERANCE

    @pytest.mark.parametrize("frozen_layers", [0, 3, 5])
    def test_frozen_layers(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        difference_from_reference: Callable[..., float],
        frozen_layers: int,
    ) -> None:
        model = make_tagger(max_loss_weight=LAMBDA, frozen_layers=frozen_layers).eval()
        assert difference_from_reference(model, make_tasks(3, RAGGED)) <= TOLERANCE

    def test_weights_used_twice(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        difference_from_reference: Callable[..., float],
    ) -> None:
        """One matrix and one scale in two layers, one matrix twice in one layer."""
        model = make_tagger(max_loss_weight=LAMBDA).eval()
        encoder = model.text_field_embedder._token_embedders["tokens"]._embedder.transformer_model.encoder
        third, fourth = encoder.layer[3], encoder.layer[4]
        number = len(trainable_parameters(model))
        fourth.output.dense.weight = third.output.dense.weight
        fourth.attention.output.LayerNorm.weight = third.attention.output.LayerNorm.weight
        fourth.attention.self.key.weight = fourth.attention.self.query.weight
        assert len(trainable_parameters(model)) == number - 3
        assert difference_from_reference(model, make_tasks(5, RAGGED)) <= TOLERANCE

    @pytest.mark.parametrize("encoder", ["xlm-roberta", "roberta", "distilbert"])
    @pytest.mark.parametrize("num_steps", [1, 2])
    def test_other_encoders(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        other_encoders: dict[str, str],
        difference_from_reference: Callable[..., float],
        encoder: str,
        num_steps: int,
    ) -> None:
        model = make_tagger(other_encoders[encoder], max_loss_weight=LAMBDA).eval()
        tasks = make_tasks(3, RAGGED, other_encoders[encoder])
        assert difference_from_reference(model, tasks, "adam", num_steps) <= TOLERANCE

    def test_attention_written_out(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        difference_from_reference: Callable[..., float],
    ) -> None:
        """Without PyTorch's own attention function."""
        eager = {"transformer_kwargs": {"attn_implementation": "eager"}}
        model = make_tagger(max_loss_weight=LAMBDA, embedder=eager).eval()
        assert difference_from_reference(model, make_tasks(3, RAGGED)) <= TOLERANCE


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learning_rate_scale(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    algorithm: Callable[..., FirstOrderMaml],
    difference_from_reference: Callable[..., float],
    optimizer: str,
) -> None:
    tasks = make_tasks(2, 2)
    assert difference_from_reference(model, tasks, optimizer, scale=0.5) <= TOLERANCE
    # The scale matters, so the comparison above means something.
    parameters = trainable_parameters(model)
    gradients = [
        algorithm(optimizer)(model, parameters, tasks, seed=0, learning_rate_scale=scale).gradient
        for scale in (0.5, 1.0)
    ]
    assert reference.relative_difference(*gradients) > FAR_OFF


def test_loss_and_reductions(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    algorithm: Callable[..., FirstOrderMaml],
) -> None:
    tasks, parameters = make_tasks(3, 2), trainable_parameters(model)
    expected = 0.0
    for task in tasks:
        weights = reference.adapted(model, task["support"], reference.updates("sgd"), 2)
        expected += reference.loss(model, weights, task["query"], LAMBDA).item()
    summed = algorithm("sgd", reduction="sum")(model, parameters, tasks, seed=0)
    mean = algorithm("sgd", reduction="mean")(model, parameters, tasks, seed=0)
    assert summed.loss.item() == pytest.approx(expected, rel=TOLERANCE)
    assert mean.loss.item() == pytest.approx(expected / 3, rel=TOLERANCE)
    assert reference.relative_difference([3 * g for g in mean.gradient], summed.gradient) <= TOLERANCE
    assert not summed.loss.requires_grad
    assert not any(gradient.requires_grad for gradient in summed.gradient)


def test_unknown_reduction() -> None:
    with pytest.raises(ConfigurationError, match="reduction='max' must be one of sum, mean"):
        FirstOrderMaml(reduction="max")


def test_is_the_default_algorithm() -> None:
    assert isinstance(MetaGradient.from_params(Params({})), FirstOrderMaml)


class TestMutations:
    """The comparison with the reference notices the mistakes that are easily made."""

    @pytest.fixture(params=OPTIMIZERS)
    def optimizer(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def off(
        self,
        model: MaxLossTagger,
        make_tasks: TaskMaker,
        difference_from_reference: Callable[..., float],
        optimizer: str,
    ) -> Callable[..., float]:
        def off(**options: Any) -> float:
            return difference_from_reference(model, make_tasks(2, 2), optimizer, 2, **options)

        assert off() <= TOLERANCE
        return off

    def test_skipped_inner_step(self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch) -> None:
        original = InnerLoop.adapt_and_differentiate

        def one_step_less(self: InnerLoop, *args: Any, **kwargs: Any) -> Any:
            self.num_steps -= 1
            try:
                return original(self, *args, **kwargs)
            finally:
                self.num_steps += 1

        monkeypatch.setattr(InnerLoop, "adapt_and_differentiate", one_step_less)
        assert off() > FAR_OFF

    def test_every_step_from_the_same_point(
        self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The gradient of the second step is taken where that of the first was."""
        original = scheduling_module.losses_and_gradients

        def at_the_start(
            model: Any, batches: Any, parameters: Any, seeds: Any, weights: Any, **options: Any
        ) -> Any:
            return original(model, batches, parameters, seeds, None, **options)

        monkeypatch.setattr(scheduling_module, "losses_and_gradients", at_the_start)
        assert off() > FAR_OFF

    def test_query_at_the_meta_parameters(
        self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = module.losses_and_gradients

        def at_the_start(
            model: Any, batches: Any, parameters: Any, seeds: Any, weights: Any, weights_of: Any
        ) -> Any:
            return original(model, batches, parameters, seeds, None, weights_of)

        monkeypatch.setattr(module, "losses_and_gradients", at_the_start)
        assert off() > FAR_OFF

    def test_flipped_sign_of_lambda(self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch) -> None:
        correct = max_loss_tagger.max_loss
        monkeypatch.setattr(
            max_loss_tagger,
            "max_loss",
            lambda losses, mask, weight, *rest: correct(losses, mask, -weight, *rest),
        )
        assert off() > FAR_OFF

    def test_no_going_back_between_tasks(
        self, model: MaxLossTagger, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A task starts from what the one before it ended with."""
        original = WorkerState.step
        left: list[Any] = []

        def forgetful(self: Any, gradients: Any, first: int, num_tasks: int, start: Any, last: bool) -> Any:
            if start is None and left:
                start = left[-1]
            left.append(original(self, gradients, first, num_tasks, start, last))
            return left[-1]

        monkeypatch.setattr(WorkerState, "step", forgetful)
        assert off(group_size=1) > FAR_OFF

    @pytest.mark.parametrize("optimizer", ["adam", "bert_adam"])
    def test_no_fresh_state(self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch) -> None:
        """The optimiser's state stays from one task to the next."""
        original = WorkerState.step

        def remembering(self: Any, gradients: Any, first: int, num_tasks: int, start: Any, last: bool) -> Any:
            return original(self, gradients, first, num_tasks, start, last=False)

        monkeypatch.setattr(WorkerState, "step", remembering)
        monkeypatch.setattr(InnerOptimizer, "reset", lambda self: None)
        assert off(group_size=1) > FAR_OFF

    @pytest.mark.parametrize("optimizer", ["adam", "bert_adam"])
    def test_one_state_for_all_tasks(
        self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The optimiser's state is that of the task before, in the same group."""
        original = InnerOptimizer.__call__

        def of_one(
            self: Any, bucket: int, value: Any, gradient: Any, out: Any, last: bool, task: int = 0
        ) -> Any:
            return original(self, bucket, value, gradient, out, last, 0)

        monkeypatch.setattr(InnerOptimizer, "__call__", of_one)
        assert off() > FAR_OFF

    def test_values_of_another_task(self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch) -> None:
        original = FastWeights.of_task
        monkeypatch.setattr(FastWeights, "of_task", lambda self, task, index: original(self, 0, index))
        assert off() > FAR_OFF

    def test_gradient_of_another_task(
        self, off: Callable[..., float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = PerTaskGradients.of_task
        monkeypatch.setattr(PerTaskGradients, "of_task", lambda self, index, task: original(self, index, 0))
        assert off() > FAR_OFF


def test_leaves_the_meta_parameters_alone(
    make_tagger: TaggerMaker, make_tasks: TaskMaker, algorithm: Callable[..., FirstOrderMaml]
) -> None:
    model = make_tagger().train()
    before = values(model)
    versions = [parameter._version for parameter in model.parameters()]
    algorithm("sgd")(model, trainable_parameters(model), make_tasks(3, 2), seed=0)
    assert identical(values(model), before)
    # Not even for a while.
    assert [parameter._version for parameter in model.parameters()] == versions
    assert model.training


@pytest.mark.parametrize(
    ("failing", "num_workers"), [*((failing, 1) for failing in range(1, 7)), (2, 3), (6, 3)]
)
def test_leaves_the_meta_parameters_alone_after_an_exception(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    algorithm: Callable[..., FirstOrderMaml],
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
    num_workers: int,
) -> None:
    """The exception of any pass reaches the caller; the next meta-gradient is as if there had been none."""
    tasks, parameters = make_tasks(2, 2), trainable_parameters(model)
    maml = algorithm("adam", microbatch_size=1, num_workers=num_workers)
    expected = maml(model, parameters, tasks, seed=0).gradient
    losses, calls = model.losses, []

    def failing_losses(batches: Sequence[Any], max_loss_weight: float | None = None) -> torch.Tensor:
        calls.append(batches)
        if len(calls) == failing:
            raise RuntimeError("out of memory")
        return losses(batches, max_loss_weight)

    before = values(model)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(model, "losses", failing_losses)
        maml(model, parameters, tasks, seed=0)
    assert identical(values(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert identical(maml(model, parameters, tasks, seed=0).gradient, expected)


def test_leaves_gradients_alone(
    model: MaxLossTagger, make_tasks: TaskMaker, algorithm: Callable[..., FirstOrderMaml]
) -> None:
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


@in_both_ways
class TestRandomNumbersOfTasks:
    """Dropout belongs to a task: the tasks it shares a pass with, or a worker, make no difference."""

    @pytest.mark.parametrize("options", [{}, {"frozen_layers": None}], ids=["frozen", "trainable"])
    def test_sizes_and_workers_do_not_matter(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
        options: dict[str, Any],
    ) -> None:
        """Neither of microbatches nor of groups; with other masks, gradients would have nothing in common."""
        model, tasks = make_tagger(**options).train(), make_tasks(4, RAGGED)
        parameters = trainable_parameters(model)
        self.compare(model, parameters, tasks, reference, algorithm)

    @pytest.mark.parametrize("encoder", ["xlm-roberta", "distilbert"])
    def test_other_encoders(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        other_encoders: dict[str, str],
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
        encoder: str,
    ) -> None:
        """DistilBERT runs on padded sentences."""
        model = make_tagger(other_encoders[encoder]).train()
        tasks = make_tasks(4, RAGGED, other_encoders[encoder])
        self.compare(model, trainable_parameters(model), tasks, reference, algorithm)

    def compare(self, model: Any, parameters: Any, tasks: Any, reference: Any, algorithm: Any) -> None:
        ways = [(1, None, 1), (40, 1, 2), (10_000, None, 1), (10_000, 2, 2)]
        first, *others = (
            algorithm(microbatch_size=size, group_size=group, num_workers=workers)(
                model, parameters, tasks, seed=3
            )
            for size, group, workers in ways
        )
        for loss, gradient in others:
            assert loss.item() == pytest.approx(first.loss.item(), rel=1e-12)
            assert reference.relative_difference(gradient, first.gradient) <= 1e-9
        other_seed = algorithm(microbatch_size=1)(model, parameters, tasks, seed=4)
        assert reference.relative_difference(other_seed.gradient, first.gradient) > 0.01

    def test_more_tasks_than_are_added_up_at_once(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        reference: SimpleNamespace,
        algorithm: Callable[..., FirstOrderMaml],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        model, tasks = make_tagger().train(), make_tasks(4, 2)
        parameters, maml = trainable_parameters(model), algorithm()
        expected = maml(model, parameters, tasks, seed=3)
        monkeypatch.setattr(module, "TASKS_ADDED_UP", 3)
        found = maml(model, parameters, tasks, seed=3)
        assert reference.relative_difference(found.gradient, expected.gradient) <= TOLERANCE


@pytest.mark.parametrize("num_support", [1, RAGGED])
@pytest.mark.parametrize(("microbatch_size", "num_workers"), [(256, 1), (40, 3)])
def test_random_numbers_depend_on_the_seed_alone(
    make_tagger: TaggerMaker,
    make_tasks: TaskMaker,
    algorithm: Callable[..., FirstOrderMaml],
    num_support: int | Sequence[int],
    microbatch_size: int,
    num_workers: int,
) -> None:
    """With dropout. A single sentence has no padding, so its attention has no mask."""
    model, tasks = make_tagger().train(), make_tasks(5, num_support)
    parameters = trainable_parameters(model)

    def gradient(seed: int) -> list[torch.Tensor]:
        torch.rand(seed + 1)  # Another random state at every call.
        maml = algorithm(microbatch_size=microbatch_size, num_workers=num_workers)
        return maml(model, parameters, tasks, seed=seed).gradient

    state = torch.get_rng_state()
    first = gradient(0)
    assert identical(gradient(0), first)
    assert not identical(gradient(1), first)
    torch.set_rng_state(state)
    expected = torch.rand(3)
    torch.set_rng_state(state)
    algorithm()(model, parameters, tasks, seed=0)
    # PyTorch's own random numbers are left alone.
    assert torch.equal(torch.rand(3), expected)


def test_tasks_do_not_see_each_other(
    make_tagger: TaggerMaker,
    make_tasks: TaskMaker,
    reference: SimpleNamespace,
    algorithm: Callable[..., FirstOrderMaml],
) -> None:
    """Fresh optimiser state, the meta parameters, and a seed by the task's number; with dropout."""
    model, tasks = make_tagger().train(), make_tasks(4, 2)
    parameters, maml = trainable_parameters(model), algorithm(microbatch_size=1)
    pair = maml(model, parameters, [tasks[0], tasks[1]], seed=5).gradient
    first = maml(model, parameters, tasks[:1], seed=5).gradient
    other_pair = maml(model, parameters, [tasks[2], tasks[1]], seed=5).gradient
    other_first = maml(model, parameters, tasks[2:3], seed=5).gradient
    second = [a - b for a, b in zip(pair, first, strict=True)]
    other_second = [a - b for a, b in zip(other_pair, other_first, strict=True)]
    # Subtraction rounds; a leak would be far larger.
    assert reference.relative_difference(other_second, second) <= 1e-12


def test_frozen_parameters_have_no_gradient(
    model: MaxLossTagger, make_tasks: TaskMaker, algorithm: Callable[..., FirstOrderMaml]
) -> None:
    parameters = trainable_parameters(model)
    assert len(algorithm()(model, parameters, make_tasks(1, 1), seed=0).gradient) == len(parameters)
    assert len(parameters) < len(list(model.parameters()))
    assert not any("layer.2." in name or "embeddings." in name for name, _ in parameters)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_works_without_gradients_enabled(
    model: MaxLossTagger,
    make_tasks: TaskMaker,
    algorithm: Callable[..., FirstOrderMaml],
    num_workers: int,
) -> None:
    parameters, tasks = trainable_parameters(model), make_tasks(2, 2)
    maml = algorithm(num_workers=num_workers, microbatch_size=1)
    expected = maml(model, parameters, tasks, seed=0).gradient
    with torch.no_grad(), preserved(model):
        assert identical(maml(model, parameters, tasks, seed=0).gradient, expected)


def test_derived_seed() -> None:
    parts = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 0, 0), (10, 1), (1, 1)]
    assert len({derived_seed(*part) for part in parts}) == len(parts)
    assert all(0 <= derived_seed(*part) < 2**32 for part in parts)
    # Must not change between versions, or a recovered run would go on with other random numbers.
    assert derived_seed(13370, 0, 0) == 1987630790
