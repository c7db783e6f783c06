"""The optimiser of the authors' published code."""

from collections.abc import Callable
from typing import Any, Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import Optimizer, ParameterGroupsType, make_parameter_groups

NOT_DECAYED = ("bias", "LayerNorm.weight", "LayerNorm.bias")


@Optimizer.register("bert_adam")
class BertAdam(Optimizer, torch.optim.Optimizer):
    """
    Adam as in the first BERT releases: no bias correction, so that the first step from a fresh state is about
    3.16 * lr * sign(gradient); decoupled weight decay, not on biases and LayerNorm; the gradient of each
    parameter tensor clipped to a norm of its own.

    Registered as an `Optimizer` with name "bert_adam".

    # Parameters

    model_parameters : `list[tuple[str, torch.nn.Parameter]]`
    parameter_groups : `list[tuple[list[str], dict[str, Any]]]`, optional (default = `None`)
        AllenNLP's regexes and options. If `None`, weight decay is off for biases and LayerNorm.
    lr : `float`, optional (default = `3e-5`)
    betas : `tuple[float, float]`, optional (default = `(0.9, 0.999)`)
    eps : `float`, optional (default = `1e-6`)
    weight_decay : `float`, optional (default = `0.01`)
    max_grad_norm : `float`, optional (default = `1.0`)
        Per parameter tensor; 0 or less switches clipping off.

    # Raises

    `ConfigurationError`, if a value is out of range.
    """

    def __init__(
        self,
        model_parameters: list[tuple[str, torch.nn.Parameter]],
        parameter_groups: Optional[ParameterGroupsType] = None,
        lr: float = 3e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ) -> None:
        if lr < 0 or eps <= 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigurationError(
                f"bert_adam: lr={lr} and weight_decay={weight_decay} must be at least 0, eps={eps} more than "
                f"0, and betas={tuple(betas)} in [0, 1)"
            )
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
        }
        groups: Any
        if parameter_groups is None:
            decayed = [p for name, p in model_parameters if not name.endswith(NOT_DECAYED)]
            others = [p for name, p in model_parameters if name.endswith(NOT_DECAYED)]
            groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
            groups = [group for group in groups if group["params"]]
        else:
            groups = make_parameter_groups(model_parameters, parameter_groups)
        torch.optim.Optimizer.__init__(self, groups, defaults)

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        bert_adam_(parameters, gradients, means, squares, group)


def bert_adam_(
    parameters: list[torch.Tensor],
    gradients: list[torch.Tensor],
    means: list[torch.Tensor],
    squares: list[torch.Tensor],
    group: dict[str, Any],
    sizes: Optional[list[int]] = None,
) -> None:
    """
    One step of several parameters, in their place.

    # Parameters

    parameters, gradients, means, squares : `list[torch.Tensor]`
        Their values, and the moments of their gradients.
    group : `dict[str, Any]`
        The options.
    sizes : `list[int]`, optional (default = `None`)
        If given, each tensor has a row for each of several independent copies of parameters of these sizes,
        end to end, and gradients may change.
    """
    if group["max_grad_norm"] > 0 and sizes is not None:
        for gradient in gradients:
            _clip_parts_(gradient, sizes, group["max_grad_norm"])
    elif group["max_grad_norm"] > 0:
        norms = torch._foreach_norm(gradients)
        factors = [(group["max_grad_norm"] / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
        gradients = list(torch._foreach_mul(gradients, factors))
    beta1, beta2 = group["betas"]
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_add_(denominators, group["eps"])
    updates = torch._foreach_div(means, denominators)
    if group["weight_decay"] > 0:
        torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
    torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def _clip_parts_(gradient: torch.Tensor, sizes: list[int], max_norm: float) -> None:
    parts = gradient.split(sizes, dim=1)
    norms = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts])
    factors = (max_norm / (norms + 1e-6)).clamp_(max=1.0)
    for part, factor in zip(parts, factors.unsqueeze(2).unbind(), strict=True):
        part.mul_(factor)
