"""The inner update: a few optimiser steps on a support set."""

from typing import Any, Optional, Protocol

import torch
from allennlp.common import FromParams, Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import AdamOptimizer, Optimizer

from allennlp_metaner.meta.parameters import NamedParameters


class Learner(Protocol):
    """What the inner loop asks of a model: a loss that leaves the model's metrics alone."""

    def loss(self, *, max_loss_weight: float | None = None, **sentences: Any) -> torch.Tensor:
        """The training loss of a batch; `max_loss_weight` overrides the own lambda (Eq. 13)."""
        ...


def gradients(loss: torch.Tensor, parameters: NamedParameters) -> list[torch.Tensor]:
    """The gradient of `loss` for each parameter: zeros where it does not depend on it."""
    tensors = [parameter for _, parameter in parameters]
    found = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


class InnerLoop(FromParams):
    """
    Gradient steps on the support set (Eq. 7-8 in meta-training, Eq. 17 in adaptation), with an optimiser
    whose state is fresh for every task.

    # Parameters

    optimizer : `Lazy[Optimizer]`, optional (default = Adam with a learning rate of 3e-5)
        Any registered AllenNLP optimiser. Adam and AdamW run in PyTorch's fused implementation.
    num_steps : `int`, optional (default = `2`)
        The number of steps, at least 1.

    # Raises

    `ConfigurationError`, if `num_steps` is less than 1.
    """

    def __init__(self, optimizer: Lazy[Optimizer] = Lazy(AdamOptimizer, lr=3e-5), num_steps: int = 2) -> None:
        if num_steps < 1:
            raise ConfigurationError(f"num_steps={num_steps} of the inner loop must be at least 1")
        self._lazy_optimizer = optimizer
        self._optimizer: Optional[torch.optim.Optimizer] = None
        self.num_steps = num_steps

    def adapt(
        self,
        model: Learner,
        parameters: NamedParameters,
        support: dict[str, Any],
        max_loss_weight: float | None = None,
        learning_rate_scale: float = 1.0,
    ) -> None:
        """
        Change `parameters` in place by `num_steps` steps on the loss of `support`. Their `grad` stays.

        # Parameters

        model : `Learner`
        parameters : `NamedParameters`
            The trainable parameters of the model.
        support : `dict[str, Any]`
            The batch of support sentences.
        max_loss_weight : `float`, optional (default = `None`)
            lambda of Eq. 13; `None` means the model's own.
        learning_rate_scale : `float`, optional (default = `1.0`)
            A factor on the optimiser's learning rate, for warm-up and decay.
        """
        optimizer = self._fresh_optimizer(parameters, learning_rate_scale)
        # Where several batches share an update, the gradients of those before are waiting here.
        accumulated = [parameter.grad for _, parameter in parameters]
        try:
            with torch.enable_grad():
                for _ in range(self.num_steps):
                    self._step(optimizer, model.loss(**support, max_loss_weight=max_loss_weight), parameters)
        finally:
            for (_, parameter), gradient in zip(parameters, accumulated, strict=True):
                parameter.grad = gradient

    @staticmethod
    def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, parameters: NamedParameters) -> None:
        for (_, parameter), gradient in zip(parameters, gradients(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        for _, parameter in parameters:
            parameter.grad = None

    def _fresh_optimizer(
        self, parameters: NamedParameters, learning_rate_scale: float
    ) -> torch.optim.Optimizer:
        """
        Building an optimiser logs its settings and sorts parameters into groups, which is too much for every
        task. So one is kept, and loses its state.
        """
        tensors = {parameter for _, parameter in parameters}
        kept = self._optimizer
        if kept is None or {p for group in kept.param_groups for p in group["params"]} != tensors:
            kept = self._lazy_optimizer.construct(model_parameters=parameters)
            for group in kept.param_groups:
                group["unscaled_lr"] = group["lr"]
                if isinstance(kept, torch.optim.Adam):
                    group["fused"] = True
            self._optimizer = kept
        kept.state.clear()
        for group in kept.param_groups:
            group["lr"] = group["unscaled_lr"] * learning_rate_scale
        return kept
