"""Passes with gradients task by task, with other weights than the model's own, and with dropout."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Optional

import pytest
import torch
from allennlp.data import TensorDict
from torch.nn import functional

from allennlp_metaner.meta.functional import functional_call, per_task_gradients
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.collate import collate
from allennlp_metaner.nn.parameters import NamedParameters, trainable_parameters
from allennlp_metaner.nn.per_task_gradients import PerTaskGradients
from allennlp_metaner.nn.randomness import TaskGenerators
from allennlp_metaner.nn.task_rows import NotSeparableError, TaskRows
from allennlp_metaner.tasks.task_field import Task

TOLERANCE = 1e-12
RAGGED = (1, 2, 5)
TaggerMaker = Callable[..., MaxLossTagger]
TaskMaker = Callable[..., list[Task]]


@pytest.fixture
def model(make_tagger: TaggerMaker) -> MaxLossTagger:
    return make_tagger().eval()


@pytest.fixture
def supports(make_tasks: TaskMaker) -> list[TensorDict]:
    return [task["support"] for task in make_tasks(5, RAGGED)]


class Given:
    """Weights that a function gives."""

    def __init__(self, of_task: Callable[[int, int], torch.Tensor]) -> None:
        self.of_task = of_task

    def stacked(self, index: int) -> None:
        return None


def rows_of(batches: list[TensorDict], packs: bool = True) -> TaskRows:
    """Written out: every task is a batch."""
    masks = [batch["tokens"]["tokens"]["wordpiece_mask"] for batch in batches]
    packed = [[int(mask.sum()) for mask in masks]] if packs else []
    return TaskRows([len(mask) for mask in masks], packed, [mask.size(1) for mask in masks])


def record(
    losses: Callable[[], torch.Tensor],
    parameters: NamedParameters,
    rows: Any,
    values: Optional[Callable[[int, int], torch.Tensor]] = None,
    seeds: Optional[list[int]] = None,
) -> tuple[torch.Tensor, PerTaskGradients]:
    """The losses, and what gradients are made of. `rows` may be the number of sentences of each task."""
    rows = rows if isinstance(rows, TaskRows) else TaskRows(rows)
    generators = None if seeds is None else TaskGenerators(seeds, rows, torch.device("cpu"))
    weights = None if values is None else Given(values)
    with per_task_gradients(parameters, rows, weights, generators) as recorded:
        found = losses()
    return found.detach(), recorded.backward(found)


def with_values(
    parameters: NamedParameters, values: Callable[[int, int], torch.Tensor], rows: Any
) -> AbstractContextManager[None]:
    rows = rows if isinstance(rows, TaskRows) else TaskRows(rows)
    return functional_call(parameters, Given(values), rows)


def differentiated(loss: torch.Tensor, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """By PyTorch; zeros for what the loss does not depend on."""
    found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = TOLERANCE) -> None:
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in theirs]
    a, b = (torch.cat([tensor.detach().flatten() for tensor in tensors]) for tensors in (ours, theirs))
    assert (a - b).norm() <= tolerance * b.norm()


class TestTagger:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"frozen_layers": 0},
            {"frozen_layers": 5},
            {"loss_reduction": "token"},
            {"embedder": {"transformer_kwargs": {"attn_implementation": "eager"}}},
        ],
        ids=str,
    )
    def test_gradients_of_the_tasks_of_a_pass(
        self, make_tagger: TaggerMaker, supports: list[TensorDict], options: dict[str, Any]
    ) -> None:
        model = make_tagger(**options).eval()
        named = trainable_parameters(model)
        parameters = [p for _, p in named]
        losses, recording = record(lambda: model.losses(supports), named, rows_of(supports))
        total = [torch.zeros_like(p) for p in parameters]
        for task, support in enumerate(supports):
            loss = model.losses([support])
            assert losses[task].item() == pytest.approx(loss.item(), rel=1e-12)
            expected = differentiated(loss, parameters)
            assert_close([recording.of_task(n, task) for n in range(len(parameters))], expected)
            total = [a + b for a, b in zip(total, expected, strict=True)]
        assert not losses.requires_grad
        assert_close([PerTaskGradients.total([recording], n) for n in range(len(parameters))], total)

    @pytest.mark.parametrize("encoder", ["xlm-roberta", "distilbert"])
    def test_other_encoders(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        other_encoders: dict[str, str],
        encoder: str,
    ) -> None:
        """XLM-R counts positions from the padding token's number on, and skips padding."""
        model = make_tagger(other_encoders[encoder]).eval()
        supports = [task["support"] for task in make_tasks(5, RAGGED, other_encoders[encoder])]
        named = trainable_parameters(model)
        rows = rows_of(supports, packs=encoder == "xlm-roberta")
        losses, recording = record(lambda: model.losses(supports), named, rows)
        for task, support in enumerate(supports):
            loss = model.losses([support])
            assert losses[task].item() == pytest.approx(loss.item(), rel=1e-12)
            expected = differentiated(loss, [p for _, p in named])
            assert_close([recording.of_task(n, task) for n in range(len(named))], expected)

    @pytest.mark.parametrize("frozen_layers", [3, None])
    def test_other_values(
        self, make_tagger: TaggerMaker, supports: list[TensorDict], frozen_layers: Optional[int]
    ) -> None:
        """As if the parameters had them; they themselves, and their gradients, are not touched."""
        model, twin = (make_tagger(frozen_layers=frozen_layers).eval() for _ in range(2))
        named = trainable_parameters(model)
        values = [p.detach() + 0.01 * torch.randn_like(p) for _, p in named]
        with torch.no_grad():
            for (_, parameter), value in zip(trainable_parameters(twin), values, strict=True):
                parameter.copy_(value)
        named[0][1].grad = torch.ones_like(named[0][1])
        before = [(p._version, p.detach().clone(), p.grad) for _, p in named]
        for support in supports:
            losses, recording = record(
                lambda s=support: model.losses([s]), named, [len(support)], lambda task, n: values[n]
            )
            loss = twin.losses([support])
            assert losses.item() == pytest.approx(loss.item(), rel=1e-12)
            expected = differentiated(loss, [p for _, p in trainable_parameters(twin)])
            assert_close([recording.of_task(n, 0) for n in range(len(named))], expected)
        for (_, parameter), (version, value, gradient) in zip(named, before, strict=True):
            assert parameter._version == version
            assert torch.equal(parameter, value)
            assert parameter.grad is gradient
            assert parameter.requires_grad

    def test_sum_over_recordings(self, model: MaxLossTagger, supports: list[TensorDict]) -> None:
        """Each at other values: the gradients of a batch of queries."""
        named = trainable_parameters(model)
        recordings, total = [], [torch.zeros_like(p) for _, p in named]
        for support in supports:
            values = [p.detach() * 1.01 for _, p in named]
            of_support = record(
                lambda s=support: model.losses([s]), named, [1], lambda task, n, v=values: v[n]
            )
            recordings.append(of_support[1])
            for number, found in enumerate(total):
                found += recordings[-1].of_task(number, 0)
        assert_close([PerTaskGradients.total(recordings, n) for n in range(len(named))], total)

    @pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
    def test_in_any_gradient_mode(
        self, model: MaxLossTagger, supports: list[TensorDict], context: Callable[[], Any]
    ) -> None:
        named = trainable_parameters(model)
        with context():
            _, recording = record(lambda: model.losses(supports[:1]), named, [1])
            found = [recording.of_task(n, 0) for n in range(len(named))]
        assert_close(found, differentiated(model.losses(supports[:1]), [p for _, p in named]))

    def test_unused_parameters_have_a_gradient_of_zeros(
        self, model: MaxLossTagger, supports: list[TensorDict]
    ) -> None:
        unused = torch.nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
        named = [*trainable_parameters(model), ("unused", unused)]
        _, recording = record(lambda: model.losses(supports), named, rows_of(supports))
        assert torch.equal(recording.of_task(len(named) - 1, 2), torch.zeros_like(unused))
        assert torch.equal(PerTaskGradients.total([recording], len(named) - 1), torch.zeros_like(unused))
        assert unused.grad is None

    def test_single_precision(self, make_tagger: TaggerMaker, supports: list[TensorDict]) -> None:
        model = make_tagger().eval()
        named = trainable_parameters(model)
        expected = [differentiated(model.losses([support]), [p for _, p in named]) for support in supports]
        model.float()
        _, recording = record(lambda: model.losses(supports), named, rows_of(supports))
        for task, gradient in enumerate(expected):
            found = [recording.of_task(n, task) for n in range(len(named))]
            assert all(tensor.dtype == torch.float32 for tensor in found)
            assert_close([tensor.double() for tensor in found], gradient, 1e-5)

    @pytest.mark.parametrize("num_queries", [1, 5])
    def test_with_values(
        self, model: MaxLossTagger, make_tasks: TaskMaker, reference: Any, num_queries: int
    ) -> None:
        """A forward pass of many tasks, each with values of its own."""
        named = trainable_parameters(model)
        queries = [task["query"] for task in make_tasks(num_queries, 1)]
        weights = [{name: p.detach() + 0.01 * torch.randn_like(p) for name, p in named} for _ in queries]
        with with_values(named, lambda task, n: weights[task][named[n][0]], rows_of(queries)):
            logits = model(**collate(queries))["logits"]
        assert not logits.requires_grad
        for row, query, own in zip(logits, queries, weights, strict=True):
            inputs = {"tokens": query["tokens"]}
            (expected,) = torch.func.functional_call(model, own, kwargs=inputs)["logits"]
            assert_close([row[: len(expected)]], [expected])

    @pytest.mark.parametrize(
        "options", [{"frozen_layers": None}, {"embedder": {"max_length": 9, "overlap": 3}}], ids=str
    )
    def test_tasks_that_cannot_share_a_pass(
        self, make_tagger: TaggerMaker, supports: list[TensorDict], options: dict[str, Any]
    ) -> None:
        """Positions are the same for all sentences; windows fold one sentence into several rows."""
        model = make_tagger(**options).eval()
        named = trainable_parameters(model)
        with pytest.raises(NotSeparableError):
            record(lambda: model.losses(supports), named, rows_of(supports))
        with (
            pytest.raises(NotSeparableError),
            with_values(named, lambda task, n: named[n][1], rows_of(supports)),
        ):
            model(**collate(supports))
        for support in supports:
            _, recording = record(lambda s=support: model.losses([s]), named, [len(support["tags"])])
            expected = differentiated(model.losses([support]), [p for _, p in named])
            assert_close([recording.of_task(n, 0) for n in range(len(named))], expected)


class Layers(torch.nn.Module):
    """Parameters for one small network or another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)
        self.without_bias = torch.nn.Linear(4, 4, bias=False)
        self.norm = torch.nn.LayerNorm(4)
        self.bare = torch.nn.LayerNorm(4, elementwise_affine=False)
        self.unshifted = torch.nn.LayerNorm(4, bias=False)
        self.vector = torch.nn.Parameter(torch.empty(4))
        self.rows = torch.nn.Parameter(torch.empty(6, 3, 4))
        self.matrix = torch.nn.Parameter(torch.empty(4, 4))
        self.frozen = torch.nn.Linear(4, 4).requires_grad_(False)
        self.table = torch.nn.Embedding(5, 4, padding_idx=1)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter)
        self.double()


Network = Callable[[Layers, torch.Tensor], torch.Tensor]


def square(x: torch.Tensor) -> torch.Tensor:
    """As many rows and columns as there are sentences, which are all there is to tell it from tokens by."""
    return torch.arange(len(x) ** 2).view(len(x), len(x)) % 4


def ids(x: torch.Tensor) -> torch.Tensor:
    """Some numbers from 0 to 3, of which all inputs have several."""
    return (x[..., 0] * 10).long() % 4


SEPARABLE: dict[str, Network] = {
    "linear": lambda net, x: net.first(x),
    "two layers": lambda net, x: net.second(net.first(x).tanh()),
    "one layer twice": lambda net, x: net.first(net.first(x).tanh()),
    "one matrix with two biases": lambda net, x: functional.linear(
        functional.linear(x, net.first.weight, net.first.bias).tanh(), net.first.weight, net.second.bias
    ),
    "without bias": lambda net, x: net.without_bias(x),
    "frozen above": lambda net, x: net.frozen(net.first(x)),
    "frozen below": lambda net, x: net.first(net.frozen(x)),
    "frozen matrix": lambda net, x: functional.linear(x, net.frozen.weight, net.first.bias),
    "frozen bias": lambda net, x: functional.linear(x, net.first.weight, net.frozen.bias),
    "keywords": lambda net, x: functional.linear(input=x, weight=net.first.weight, bias=net.first.bias),
    "layer normalisation": lambda net, x: net.first(net.norm(x * 3)),
    "nothing to normalise with": lambda net, x: net.first(net.bare(net.first(x))),
    "normalisation by keywords": lambda net, x: functional.layer_norm(
        input=net.first(x), normalized_shape=(4,), weight=net.norm.weight, bias=net.norm.bias, eps=0.1
    ),
    "embedding": lambda net, x: net.first(net.table(ids(x)) + x).tanh(),
    "embedding twice": lambda net, x: net.table(ids(x)) * net.table(ids(x + 1)),
    "embedding without padding": lambda net, x: (
        functional.embedding(input=ids(x), weight=net.table.weight) * x
    ),
    "frozen embedding": lambda net, x: functional.embedding(ids(x), net.frozen.weight) * net.first(x),
    "first word": lambda net, x: net.first(x[:, 0]).tanh(),
    "four dimensions": lambda net, x: net.first(x.unsqueeze(2).expand(-1, -1, 2, -1)).tanh(),
    "not contiguous": lambda net, x: net.first(x.transpose(1, 2)[:, :, :1].transpose(1, 2)),
}

# In a pass of one task only.
OTHERS: dict[str, Network] = {
    "product with a vector": lambda net, x: net.first(x * net.vector),
    "sum of rows": lambda net, x: net.first(x + net.rows),
    "sum of two matrices": lambda net, x: functional.linear(x, net.matrix + net.first.weight),
    "two sums": lambda net, x: (x @ (net.matrix + net.first.weight)).tanh() * (net.vector + net.first.bias),
    "transpose": lambda net, x: functional.linear(net.first(x), net.first.weight.t()),
    "matrix product": lambda net, x: x @ net.matrix,
    "positions": lambda net, x: net.first(x) + net.table(torch.arange(x.size(1)).unsqueeze(0)),
    "relative positions": lambda net, x: net.first(x) + net.table(square(x)).sum((0, 1)),
    "scaled embedding": lambda net, x: (
        x * functional.embedding(ids(x), net.table.weight, scale_grad_by_freq=True)
    ),
    "parameter as input": lambda net, x: net.first(net.rows) + x,
    "parameter as input by keyword": lambda net, x: functional.linear(input=net.rows, weight=net.matrix) + x,
    "normalised parameter": lambda net, x: net.norm(net.rows) + net.first(x),
    "parameter in dropout": lambda net, x: functional.dropout(net.rows, 0.0) + net.first(x),
    "parameters in attention": lambda net, x: functional.scaled_dot_product_attention(x, net.rows, net.rows),
    "one vector": lambda net, x: x * net.first(net.second(net.vector)),
    "list": lambda net, x: x * torch.stack([net.vector, net.first.bias]).sum(0),
    "tuple": lambda net, x: x * torch.cat((net.vector, net.first.bias)).view(2, 4).prod(0),
    "only the scale": lambda net, x: functional.layer_norm(x, (4,), net.norm.weight) + net.first(x),
    "unshifted normalisation": lambda net, x: net.unshifted(net.first(x)),
    "normalisation of two dimensions": lambda net, x: functional.layer_norm(
        net.first(x), (3, 4), net.rows[0], net.rows[1]
    ),
    "attribute": lambda net, x: net.first(x) * net.vector.sum() * net.vector.shape[0],
    "expanded gradient": lambda net, x: net.first(x) + net.matrix.sum() + net.vector.sum(),
}

ONLY_FORWARD = ("only the scale", "unshifted normalisation")
"""Without gradients, these can share a pass."""


class TestNetworks:
    """Uses of parameters in networks of a few layers, against PyTorch's own differentiation."""

    SIZES = [2, 1, 3]  # noqa: RUF012

    @pytest.fixture
    def net(self) -> Layers:
        torch.manual_seed(2)
        return Layers()

    @pytest.fixture
    def inputs(self) -> torch.Tensor:
        return torch.randn(6, 3, 4, dtype=torch.float64)

    def losses(self, network: Network, net: Layers, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.square().sum() for part in network(net, inputs).split(self.SIZES)])

    @pytest.mark.parametrize("name", SEPARABLE)
    def test_tasks_share_a_pass(self, net: Layers, inputs: torch.Tensor, name: str) -> None:
        network, named = SEPARABLE[name], trainable_parameters(net)
        expected = self.losses(network, net, inputs)
        losses, recording = record(lambda: self.losses(network, net, inputs), named, self.SIZES)
        torch.testing.assert_close(losses, expected.detach(), rtol=1e-12, atol=0.0)
        for task in range(3):
            gradients = torch.autograd.grad(
                expected[task], [p for _, p in named], retain_graph=True, allow_unused=True
            )
            for number, gradient in enumerate(gradients):
                found = recording.of_task(number, task)
                theirs = torch.zeros_like(found) if gradient is None else gradient
                torch.testing.assert_close(found, theirs, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("name", {**SEPARABLE, **OTHERS})
    @pytest.mark.parametrize("other_values", [False, True])
    def test_one_task(self, net: Layers, inputs: torch.Tensor, name: str, other_values: bool) -> None:
        network, named = {**SEPARABLE, **OTHERS}[name], trainable_parameters(net)
        values = [p.detach() * 1.5 for _, p in named] if other_values else None
        losses, recording = record(
            lambda: network(net, inputs).square().sum().unsqueeze(0),
            named,
            [6],
            None if values is None else lambda task, n: values[n],
        )
        found = [recording.of_task(n, 0) for n in range(len(named))]
        # An optimiser may write into a gradient, so none shares its memory with anything else.
        tensors = [*found, *(p for _, p in named), *(values or [])]
        assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)
        assert all(gradient.is_contiguous() for gradient in found)
        if values is not None:
            with torch.no_grad():
                for (_, parameter), value in zip(named, values, strict=True):
                    parameter.copy_(value)
        loss = network(net, inputs).square().sum()
        assert losses.item() == pytest.approx(loss.item(), rel=1e-12)
        assert_close(found, differentiated(loss, [p for _, p in named]))

    @pytest.mark.parametrize("name", SEPARABLE)
    def test_tasks_with_values_of_their_own_share_a_pass(
        self, net: Layers, inputs: torch.Tensor, name: str
    ) -> None:
        network, named = SEPARABLE[name], trainable_parameters(net)
        values = [[p.detach() + torch.randn_like(p) for _, p in named] for _ in self.SIZES]
        losses, recording = record(
            lambda: self.losses(network, net, inputs), named, self.SIZES, lambda task, n: values[task][n]
        )
        total = [torch.zeros_like(p) for _, p in named]
        for task, rows in enumerate(inputs.split(self.SIZES)):
            own = [value.clone().requires_grad_() for value in values[task]]
            with torch.no_grad():
                for (_, parameter), value in zip(named, own, strict=True):
                    parameter.copy_(value)
            loss = network(net, rows).square().sum()
            assert losses[task].item() == pytest.approx(loss.item(), rel=1e-12)
            expected = differentiated(loss, [p for _, p in named])
            assert_close([recording.of_task(n, task) for n in range(len(named))], expected)
            total = [a + b for a, b in zip(total, expected, strict=True)]
        assert_close([PerTaskGradients.total([recording], n) for n in range(len(named))], total)

    def test_gradients_end_to_end(self, net: Layers, inputs: torch.Tensor) -> None:
        network, named = SEPARABLE["layer normalisation"], trainable_parameters(net)
        _, recording = record(lambda: self.losses(network, net, inputs), named, self.SIZES)
        found = recording.of_tasks([1, 0], first=1, num_tasks=2)
        for row, task in zip(found, (1, 2), strict=True):
            expected = [recording.of_task(number, task).flatten() for number in (1, 0)]
            assert torch.equal(row, torch.cat(expected))

    @pytest.mark.parametrize("name", OTHERS)
    def test_several_tasks_are_refused(self, net: Layers, inputs: torch.Tensor, name: str) -> None:
        """Instead of a wrong gradient."""
        named = trainable_parameters(net)
        with pytest.raises(NotSeparableError):
            record(lambda: self.losses(OTHERS[name], net, inputs), named, self.SIZES)

    @pytest.mark.parametrize("name", [name for name in OTHERS if name not in ONLY_FORWARD])
    def test_with_values_refuses_several_tasks(self, net: Layers, inputs: torch.Tensor, name: str) -> None:
        named = trainable_parameters(net)
        values = [p.detach() for _, p in named]
        with pytest.raises(NotSeparableError), with_values(named, lambda task, n: values[n], self.SIZES):
            OTHERS[name](net, inputs)

    @pytest.mark.parametrize(
        "network",
        [
            lambda net, x: net.first(x.flatten(0, 1)).view_as(x),
            lambda net, x: net.first(x.transpose(0, 1)).transpose(0, 1),
            lambda net, x: net.first(x[:4]).repeat(2, 1, 1)[:6],
        ],
        ids=["flat", "words first", "fewer rows"],
    )
    def test_rows_that_are_no_sentences_are_refused(
        self, net: Layers, inputs: torch.Tensor, network: Network
    ) -> None:
        named = trainable_parameters(net)
        with pytest.raises(NotSeparableError):
            record(lambda: self.losses(network, net, inputs), named, self.SIZES)

    @pytest.mark.parametrize(
        ("name", "num_tasks"),
        [(name, 1) for name in {**SEPARABLE, **OTHERS}] + [(name, 3) for name in (*SEPARABLE, *ONLY_FORWARD)],
    )
    def test_with_values(self, net: Layers, inputs: torch.Tensor, name: str, num_tasks: int) -> None:
        network, named = {**SEPARABLE, **OTHERS}[name], trainable_parameters(net)
        parts = self.SIZES if num_tasks > 1 else [6]
        values = [[p.detach() * (1.5 + task) for _, p in named] for task in range(num_tasks)]
        with with_values(named, lambda task, n: values[task][n], parts):
            found = network(net, inputs)
        rows = torch.arange(6).split(parts)
        for task, own in enumerate(values):
            with torch.no_grad():
                for (_, parameter), value in zip(named, own, strict=True):
                    parameter.copy_(value)
                theirs = network(net, inputs)
            assert_close([found[rows[task]]], [theirs[rows[task]]])

    def test_after_an_exception(self, net: Layers, inputs: torch.Tensor) -> None:
        """PyTorch is itself again."""
        named = trainable_parameters(net)
        with pytest.raises(NotSeparableError):
            record(lambda: self.losses(OTHERS["list"], net, inputs), named, self.SIZES)
        loss = net.first(inputs).sum()
        loss.backward()
        assert net.first.weight.grad is not None


class TestDropout:
    NUM_DRAWS = 200

    @pytest.fixture
    def model(self, make_tagger: TaggerMaker) -> MaxLossTagger:
        return make_tagger().train()

    def test_depends_on_the_seeds_alone(self, model: MaxLossTagger, supports: list[TensorDict]) -> None:
        named = trainable_parameters(model)

        def drawn(seed: int, batches: list[TensorDict]) -> list[torch.Tensor]:
            torch.rand(3)
            seeds = [seed * len(batches) + task for task in range(len(batches))]
            _, recording = record(lambda: model.losses(batches), named, rows_of(batches), None, seeds)
            return [PerTaskGradients.total([recording], n) for n in range(len(named))]

        # With padding, and of one sentence without.
        for batches in (supports, supports[:1]):
            first = drawn(0, batches)
            state = torch.get_rng_state()
            again, other = drawn(0, batches), drawn(1, batches)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
            assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
            # PyTorch's own random numbers are left alone but for those that `drawn` takes.
            torch.set_rng_state(state)
            expected = torch.rand(6)
            torch.set_rng_state(state)
            drawn(0, batches)
            assert torch.equal(torch.rand(3), expected[3:])

    @pytest.mark.parametrize("where", ["hidden", "attention_probs", "classifier"])
    @pytest.mark.parametrize("num_sentences", [1, 2])
    def test_has_the_distribution_of_pytorchs_own(
        self,
        make_tagger: TaggerMaker,
        make_tasks: TaskMaker,
        num_sentences: int,
        where: str,
    ) -> None:
        """
        The mean and the variance of the loss. One sentence comes without an attention mask, several of
        different lengths with one.
        """
        rates = {name: 0.3 * (name == where) for name in ("hidden", "attention_probs", "classifier")}
        of_encoder = {f"{name}_dropout_prob": rates[name] for name in ("hidden", "attention_probs")}
        model = make_tagger(dropout=rates["classifier"], embedder={"transformer_kwargs": of_encoder})
        model.train().float()
        (task,) = make_tasks(1, num_sentences)
        named, batch = trainable_parameters(model), task["support"]
        torch.manual_seed(0)
        # All draws at once: as tasks that share a pass.
        batches, seeds = [batch] * self.NUM_DRAWS, list(range(self.NUM_DRAWS))
        ours, _ = record(lambda: model.losses(batches), named, rows_of(batches), None, seeds)
        with torch.no_grad():
            theirs = model.losses(batches)
        a, b = ours.double(), theirs.double()
        assert a.shape == b.shape == (self.NUM_DRAWS,)
        assert b.std() > 0.01 * b.mean()
        assert (a.mean() - b.mean()).abs() <= 4 * (standard_error(a) ** 2 + standard_error(b) ** 2) ** 0.5
        squares = [(draws - draws.mean()).square() for draws in (a, b)]
        error = sum(standard_error(of_draws) ** 2 for of_draws in squares) ** 0.5
        assert (squares[0].mean() - squares[1].mean()).abs() <= 4 * error

    def test_gradient_has_the_mask_of_the_loss(
        self, make_tagger: TaggerMaker, supports: list[TensorDict]
    ) -> None:
        """Against differences of losses with the same random numbers."""
        model = make_tagger().train()
        named = trainable_parameters(model)

        def run(values: Optional[list[torch.Tensor]]) -> tuple[torch.Tensor, PerTaskGradients]:
            return record(
                lambda: model.losses(supports[2:3]),
                named,
                [5],
                None if values is None else lambda task, n: values[n],
                [0],
            )

        start = [p.detach() for _, p in named]
        direction = [torch.randn_like(p) for p in start]
        above, below = (
            run([p + step * d for p, d in zip(start, direction, strict=True)])[0].item()
            for step in (1e-5, -1e-5)
        )
        _, recording = run(None)
        slope = sum((recording.of_task(n, 0) * d).sum().item() for n, d in enumerate(direction))
        assert slope == pytest.approx((above - below) / 2e-5, rel=1e-5)


def standard_error(draws: torch.Tensor) -> float:
    return (draws.std() / len(draws) ** 0.5).item()
