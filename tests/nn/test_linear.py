"""The matrix product of linear layers, by either library."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.overrides import BaseTorchFunctionMode

from allennlp_metaner.nn import linear as linear_module
from allennlp_metaner.nn.linear import FastLinear, fast_linear, linear, prefers_onednn

SHAPES = [
    ((5, 4), 3),
    ((1, 4), 3),
    ((5, 1), 3),
    ((5, 4), 1),
    ((2, 3, 4), 5),
    ((2, 3, 2, 4), 5),
    ((4,), 3),
    ((0, 4), 3),
    ((70, 130), 65),
]
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-13}
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(params=[True, False], ids=["onednn", "blas"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Each where PyTorch has both; otherwise twice the same."""
    onednn = request.param and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    monkeypatch.setattr(linear_module, "prefers_onednn", lambda: onednn)
    return onednn


def tensors(shape: tuple[int, ...], size: int, dtype: torch.dtype) -> Tensors:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    return draw(*shape), draw(size, shape[-1]), draw(size)


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Of whole products: single numbers may cancel out."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert (ours - theirs).norm() <= TOLERANCES[ours.dtype] * theirs.norm()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("shape", "size"), SHAPES, ids=str)
def test_equals_pytorchs_own(shape: tuple[int, ...], size: int, dtype: torch.dtype) -> None:
    inputs, weight, bias = tensors(shape, size, dtype)
    assert_equal(linear(inputs, weight, bias), functional.linear(inputs, weight, bias))
    assert_equal(linear(inputs, weight), functional.linear(inputs, weight))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    "change",
    [
        lambda x, w: (x.t().contiguous().t(), w),
        lambda x, w: (x, w.t().contiguous().t()),
        lambda x, w: (x.t().contiguous().t(), w.t().contiguous().t()),
        lambda x, w: (x[::2], w[::3]),
        lambda x, w: (x[:, ::2], w[:, ::2]),
        lambda x, w: (x[3:9], w[5:, :]),
        lambda x, w: (x[:1].expand(6, -1), w),
        lambda x, w: (x, w[:1].expand(6, -1)),
        lambda x, w: (x.view(5, 4, 16)[:, 0], w),
        lambda x, w: (x.view(5, 4, 16).transpose(0, 1), w),
    ],
    ids=[
        "transposed inputs",
        "transposed weight",
        "both transposed",
        "some rows",
        "some columns",
        "a stretch of rows",
        "one row many times",
        "one row of the weight many times",
        "first of each sentence",
        "words first",
    ],
)
def test_operands_of_any_layout(
    change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]], dtype: torch.dtype
) -> None:
    inputs, weight, bias = tensors((20, 16), 12, dtype)
    inputs, weight = change(inputs, weight)
    before = inputs.clone(), weight.clone()
    bias = bias[: len(weight)]
    assert_equal(linear(inputs, weight, bias), functional.linear(inputs, weight, bias))
    assert_equal(linear(inputs, weight), functional.linear(inputs, weight))
    assert torch.equal(inputs, before[0])
    assert torch.equal(weight, before[1])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_gradient_of_a_weight(dtype: torch.dtype) -> None:
    """Both operands transposed, with the rows of all tokens inside."""
    inputs, weight, _ = tensors((20, 16), 12, dtype)
    output_gradient = functional.linear(inputs, weight)
    assert_equal(linear(output_gradient.t(), inputs.t()), output_gradient.t() @ inputs)
    assert_equal(linear(output_gradient, weight.t()), output_gradient @ weight)


def test_the_choice_is_one_of_pytorchs(library: bool) -> None:
    """And is the same every time."""
    assert prefers_onednn() is prefers_onednn()
    assert not prefers_onednn() or hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    found: list[Any] = []

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        found.append(args)
        return linear(*args, **kwargs)

    monkeypatch.setattr(linear_module, "linear", spy)
    return found


class TestFastLinear:
    @pytest.fixture
    def network(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 3))

    def test_without_gradients(self, network: torch.nn.Module, calls: list[Any]) -> None:
        inputs = torch.randn(5, 4)
        expected = network.eval()(inputs)
        with torch.no_grad(), FastLinear():
            found = network(inputs)
        assert len(calls) == 2
        assert_equal(found, expected.detach())

    def test_keywords(self, calls: list[Any]) -> None:
        inputs, weight, _ = tensors((5, 4), 3, torch.float32)
        with torch.no_grad(), FastLinear(torch.Generator()):
            assert_equal(functional.linear(input=inputs, weight=weight), functional.linear(inputs, weight))
            assert torch.equal(functional.dropout(input=inputs, p=0.0), inputs)
        assert len(calls) == 2

    def test_where_it_is_used(
        self, library: bool, network: torch.nn.Module, calls: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the products are faster, no gradient is wanted, and nothing else decides."""

        def num_calls() -> int:
            calls.clear()
            with fast_linear(torch.device("cpu")):
                network(torch.randn(5, 4))
            return len(calls)

        assert num_calls() == 0
        with torch.no_grad():
            assert num_calls() == 2 * library
            with torch.autocast("cpu", torch.bfloat16):
                assert num_calls() == 0
            with BaseTorchFunctionMode():
                assert num_calls() == 0

    def test_with_gradients(self, network: torch.nn.Module, calls: list[Any]) -> None:
        inputs = torch.randn(5, 4)
        with FastLinear():
            network.eval()(inputs).sum().backward()
        assert calls == []
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_generator(self, network: torch.nn.Module) -> None:
        """Dropout draws from it, or else from PyTorch's."""
        inputs, network = torch.ones(50, 4), network.train()

        def run(**options: Any) -> torch.Tensor:
            with torch.no_grad(), FastLinear(**options):
                return network(inputs)

        first, again, other = (run(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        torch.manual_seed(0)
        with torch.no_grad():
            expected = network(inputs)
        torch.manual_seed(0)
        assert_equal(run(), expected)

    @pytest.mark.parametrize("masked", [False, True])
    def test_generator_of_attention(self, masked: bool) -> None:
        query = torch.randn(2, 3, 4)
        mask = torch.zeros(2, 3, 3) if masked else None

        def run(seed: int) -> torch.Tensor:
            torch.rand(seed + 1)
            with torch.no_grad(), FastLinear(torch.Generator().manual_seed(seed)):
                return functional.scaled_dot_product_attention(
                    query, query, query, attn_mask=mask, dropout_p=0.5
                )

        assert torch.equal(run(0), run(0))
        assert not torch.equal(run(0), run(1))

    def test_dropout_in_training(self, network: torch.nn.Module, calls: list[Any]) -> None:
        """Draws from PyTorch's generator, fewer numbers than PyTorch itself; gradients go through."""
        inputs = torch.ones(50, 4)
        network.train()

        def run() -> torch.Tensor:
            torch.manual_seed(0)
            with fast_linear(torch.device("cpu")):
                return network(inputs)

        first = run()
        assert torch.equal(first, run())
        torch.manual_seed(0)
        assert not torch.equal(first, network(inputs))
        first.sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert calls == []

    def test_few_shapes(self, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        """With lower precision, products have a multiple of some number of rows; nothing else changes."""
        sizes: list[int] = []
        original = functional.linear

        def spy(inputs: torch.Tensor, *args: Any) -> torch.Tensor:
            sizes.append(inputs.size(0))
            return original(inputs, *args)

        def run() -> list[torch.Tensor]:
            network.zero_grad()
            with fast_linear(torch.device("cpu")):
                output = network(inputs)
            output.pow(2).sum().backward()
            return [output.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]

        network.eval().double()
        inputs = torch.randn(5, 4, dtype=torch.float64)
        expected = run()
        monkeypatch.setattr(linear_module.torch, "get_float32_matmul_precision", lambda: "medium")
        found = run()
        for ours, theirs in zip(found, expected, strict=True):
            assert_equal(ours, theirs)
        monkeypatch.setattr(linear_module.functional, "linear", spy)
        linear_module._in_few_shapes(inputs, torch.ones(3, 4, dtype=torch.float64))
        assert sizes == [linear_module.ROWS]


@pytest.mark.parametrize("shape", [(5, 40), (3, 7, 40), (64, 64)], ids=str)
def test_few_shapes_without_gradients(
    library: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the inner loop, with lower precision: of inputs, and of the sums over rows in weight gradients."""
    inputs, weight, bias = tensors(shape, 24, torch.float32)
    rows = inputs.reshape(-1, shape[-1])
    expected = [linear(inputs, weight, bias), linear(inputs, weight), linear(rows.t(), rows.t())]
    sizes: list[tuple[int, ...]] = []
    product = linear_module._product

    def spy(*args: Any) -> torch.Tensor:
        sizes.append((args[0].size(0), *args[0].shape[-1:], *args[1].shape[-1:]))
        return product(*args)

    monkeypatch.setattr(linear_module.torch, "get_float32_matmul_precision", lambda: "medium")
    monkeypatch.setattr(linear_module, "_product", spy)
    found = [linear(inputs, weight, bias), linear(inputs, weight), linear(rows.t(), rows.t())]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert_equal(ours, theirs)
    assert len(sizes) == 3
    assert all(size % linear_module.ROWS == 0 for of_product in sizes for size in of_product)
