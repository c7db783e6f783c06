"""Steps of SGD and Adam that autograd can go back through."""

from collections.abc import Sequence
from typing import Any

import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.meta.inner_update import has_extras
from allennlp_metaner.meta.parameters import NamedParameters

TINY = 1e-38
"""Below it, the square of a gradient is taken for a constant: the root has no derivative at 0."""


class DifferentiableSteps:
    """
    Steps of the optimiser of one task, as functions of the parameters' values and gradients.

    # Parameters

    optimizer : `torch.optim.Optimizer`
        Plain SGD, Adam or AdamW. Its options are used; it never steps.
    parameters : `NamedParameters`
        What it was made for.
    learning_rate_scale : `float`, optional (default = `1.0`)
        A factor on its learning rates.

    # Raises

    `ConfigurationError`, for another optimiser, and for options such as momentum.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: NamedParameters, learning_rate_scale: float = 1.0
    ) -> None:
        self._adam = isinstance(optimizer, torch.optim.Adam)
        known = self._adam or isinstance(optimizer, torch.optim.SGD)
        if not known or any(map(has_extras, optimizer.param_groups)):
            raise ConfigurationError(
                f"second-order MAML cannot go back through steps of {type(optimizer).__name__} with these "
                "options: take Adam, AdamW or SGD without momentum, amsgrad and maximize. The first step of "
                "BertAdam is one of Adam, see published_as_adam in training_configs/lib/inner_steps.libsonnet"
            )
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        self._groups: list[dict[str, Any]] = [groups[id(parameter)] for _, parameter in parameters]
        self._scale = learning_rate_scale
        self._moments: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._num_steps = 0

    def __call__(
        self, values: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """
        # Parameters

        values : `Sequence[torch.Tensor]`
            Of the parameters, before the step.
        gradients : `Sequence[torch.Tensor]`

        # Returns

        `list[torch.Tensor]`
            The values after the step.
        """
        self._num_steps += 1
        return [
            self._step(number, group, value, gradient)
            for number, (group, value, gradient) in enumerate(
                zip(self._groups, values, gradients, strict=True)
            )
        ]

    def _step(
        self, number: int, group: dict[str, Any], value: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        lr, decay = group["lr"] * self._scale, group["weight_decay"]
        if decay and group.get("decoupled_weight_decay"):
            value = value * (1 - lr * decay)
        elif decay:
            gradient = gradient + decay * value
        if not self._adam:
            return value - lr * gradient
        return value - lr * self._direction(number, group, gradient)

    def _direction(self, number: int, group: dict[str, Any], gradient: torch.Tensor) -> torch.Tensor:
        beta1, beta2 = group["betas"]
        if self._num_steps == 1:
            # Bias correction undoes the moments of the first step. |g| has a derivative where the root of
            # its square has none.
            self._moments.append(((1 - beta1) * gradient, (1 - beta2) * gradient**2))
            return gradient / (gradient.abs() + group["eps"])
        mean, square = self._moments[number]
        mean, square = beta1 * mean + (1 - beta1) * gradient, beta2 * square + (1 - beta2) * gradient**2
        self._moments[number] = mean, square
        root = (square / (1 - beta2**self._num_steps)).clamp_min(TINY).sqrt()
        return mean / (1 - beta1**self._num_steps) / (root + group["eps"])
