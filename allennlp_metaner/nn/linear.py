"""The matrix products of linear layers, in the library that is fast on the CPU at hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Optional

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode, has_torch_function

from allennlp_metaner.nn.dropout import attention, dropout

ROWS = 64
"""Packed sentences come in any number of rows, of which products in training know only multiples of this."""


@cache
def prefers_onednn() -> bool:
    """
    Whether float32 products go to oneDNN instead of PyTorch's BLAS, which mostly is MKL. On CPUs of other
    vendors, MKL does not use AVX-512: on an AMD Zen 5 it reaches 100 GFLOP/s a core, and oneDNN 240.
    """
    if not torch.backends.mkl.is_available() or not torch.backends.mkldnn.is_available():
        return False
    cpuinfo = Path("/proc/cpuinfo")
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and cpuinfo.exists()
        and "AuthenticAMD" in cpuinfo.read_text()
    )


def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None) -> torch.Tensor:
    """
    `inputs` times the transpose of `weight`, plus `bias`. Not differentiable. Any of the matrices may be the
    transpose of another, at no cost.

    # Parameters

    inputs : `torch.Tensor`
        Shape `(..., in)`.
    weight : `torch.Tensor`
        Shape `(out, in)`.
    bias : `torch.Tensor`, optional (default = `None`)
        Shape `(out,)`.

    # Returns

    `torch.Tensor`
        Shape `(..., out)`.
    """
    if inputs.device.type != "cpu" or not inputs.dtype == weight.dtype == torch.float32:
        return functional.linear(inputs, weight, bias)
    if torch.get_float32_matmul_precision() == "highest":
        return _product(inputs, weight, bias)
    terms = -inputs.size(-1) % ROWS
    if terms:
        # The sum over the rows of a task's sentences, in the gradient of a weight.
        inputs, weight = functional.pad(inputs, (0, terms)), functional.pad(weight, (0, terms))
    return _in_few_shapes(inputs, weight, bias, _product)


def _product(inputs: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor]) -> torch.Tensor:
    if prefers_onednn():
        return torch.ops.mkldnn._linear_pointwise.default(inputs, weight, bias, "none", [], "")
    return functional.linear(inputs, weight, bias)


@contextmanager
def full_precision() -> Iterator[None]:
    """Real float32 products, whatever the user allows for training: a rounding bound may rely on it."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _in_few_shapes(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: Optional[torch.Tensor] = None,
    product: Optional[Callable[..., torch.Tensor]] = None,
) -> torch.Tensor:
    """
    A product of a multiple of `ROWS` rows; those that are missing are zero. PyTorch's own is differentiable.
    On CPUs, products of lower precision are oneDNN's, which compiles a kernel for each shape, and keeps it.
    """
    product = product or functional.linear
    rows = inputs.reshape(-1, inputs.size(-1))
    missing = -rows.size(0) % ROWS
    if inputs.device.type != "cpu" or not missing:
        return product(inputs, weight, bias)
    outputs = product(functional.pad(rows, (0, 0, 0, missing)), weight, bias)[: rows.size(0)]
    return outputs.view(*inputs.shape[:-1], outputs.size(-1))


_WITH_INPUT = (functional.linear, functional.layer_norm, functional.embedding, functional.dropout)


def input_first(func: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments of a call that a `TorchFunctionMode` gets, with a layer's input at the first position."""
    kwargs = dict(kwargs or {})
    if func in _WITH_INPUT and "input" in kwargs:
        args = (kwargs.pop("input"), *args)
    return args, kwargs


class FastLinear(TorchFunctionMode):
    """
    A context in which linear layers run through [`linear`](#linear), where no gradient is wanted, and dropout
    draws little.

    # Parameters

    generator : `torch.Generator`, optional (default = `None`)
        If given, where [`dropout`](./dropout.md#dropout) draws from.
    """

    def __init__(self, generator: Optional[torch.Generator] = None) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = input_first(func, args, kwargs)
        if func is functional.linear and not torch.is_grad_enabled():
            return linear(*args, **kwargs)
        if func is functional.linear and torch.get_float32_matmul_precision() != "highest":
            return _in_few_shapes(*args, **kwargs)
        if func is functional.dropout and self._generator is not None:
            return dropout(*args, **{**kwargs, "generator": self._generator})
        if func is functional.scaled_dot_product_attention and self._generator is not None:
            return attention(*args, **{**kwargs, "generator": self._generator})
        return func(*args, **kwargs)


@contextmanager
def fast_linear(device: torch.device) -> Iterator[None]:
    """
    [`FastLinear`](#fastlinear) for a model on `device` where that is faster and nothing else decides over the
    layers: neither `torch.autocast` nor another `TorchFunctionMode`, such as
    [`functional_call`](../meta/functional.md#functional_call) enters. Without gradients, it
    is the linear layers that are faster, with gradients the dropout of a model in training on the CPU, which
    draws from PyTorch's global generator.
    """
    others = has_torch_function((torch.empty(0),)) or torch.is_autocast_enabled("cpu")
    if not others and torch.is_grad_enabled() and device.type == "cpu":
        with FastLinear(torch.default_generator):
            yield
    elif not others and not torch.is_grad_enabled() and prefers_onednn():
        with FastLinear():
            yield
    else:
        yield
