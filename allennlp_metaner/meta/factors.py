"""Layers whose backward pass keeps the factors of parameters' gradients, instead of multiplying them."""

from collections.abc import Callable
from typing import Any, Optional

import torch
from torch.nn import functional

from allennlp_metaner.nn.linear import linear

Keep = Callable[[torch.Tensor, torch.Tensor, torch.dtype], None]


class Linear(torch.autograd.Function):
    """A linear layer whose backward pass keeps its factors instead of multiplying them."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: Optional[torch.Tensor],
        anchor: torch.Tensor,
        keep: Keep,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.keep = keep
        return linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        output_gradient = output_gradient.contiguous()
        ctx.keep(inputs.detach(), output_gradient, weight.dtype)
        input_gradient = linear(output_gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return input_gradient, None, None, None, None


class LayerNorm(torch.autograd.Function):
    """Layer normalisation whose backward pass keeps the factors of its parameters' gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        anchor: torch.Tensor,
        eps: float,
        keep: Keep,
    ) -> torch.Tensor:
        outputs, mean, inverse_deviation = torch.native_layer_norm(
            inputs, [inputs.size(-1)], weight, bias, eps
        )
        ctx.save_for_backward(inputs, weight, bias, mean, inverse_deviation)
        ctx.keep = keep
        return outputs

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        inputs, weight, bias, mean, inverse_deviation = ctx.saved_tensors
        output_gradient = output_gradient.contiguous()
        ctx.keep((inputs - mean) * inverse_deviation, output_gradient, weight.dtype)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = torch.ops.aten.native_layer_norm_backward(
                output_gradient,
                inputs,
                [inputs.size(-1)],
                mean,
                inverse_deviation,
                weight,
                bias,
                [True, False, False],
            )[0]
        return input_gradient, None, None, None, None, None


class Embedding(torch.autograd.Function):
    """A look-up whose backward pass keeps which rows had which gradient, and makes no table of them."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, anchor: torch.Tensor, keep: Keep
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.keep = keep
        return functional.embedding(inputs, weight)

    @staticmethod
    def backward(ctx: Any, output_gradient: torch.Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        ctx.keep(inputs.unsqueeze(-1), output_gradient.contiguous(), output_gradient.dtype)
        return None, None, None, None
