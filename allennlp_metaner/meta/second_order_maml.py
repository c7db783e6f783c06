"""Second-order MAML: the exact meta-gradient, by ordinary autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from allennlp.common.checks import ConfigurationError
from torch.nn.attention import SDPBackend, sdpa_kernel

from allennlp_metaner.meta.fast_weights import Batch, Learner
from allennlp_metaner.meta.inner_optimizers import has_extras
from allennlp_metaner.meta.meta_gradients import MetaGradient, MetaGradientOutput, TaskBatch
from allennlp_metaner.nn.collate import Joined
from allennlp_metaner.nn.parameters import NamedParameters
from allennlp_metaner.nn.randomness import derived_seed

TINY = 1e-38
"""Below it, the square of a gradient is taken for a constant: the root has no derivative at 0."""


@MetaGradient.register("maml")
class Maml(MetaGradient):
    """
    MAML (Finn et al., 2017): the gradient of the query's loss at the adapted parameters with respect to the
    meta parameters, through the steps of the inner loop. First-order MAML takes the adapted parameters'
    derivative with respect to the meta parameters for the identity; this does not.

    It is exact, for any model, and slow: one task after the other, by autograd's own double backward pass,
    with all the activations of a task in memory.

    Registered as a `MetaGradient` with name "maml".

    # Parameters

    inner_loop : `InnerLoop`, optional (default = two Adam steps with a learning rate of 3e-5)
        Its optimiser is Adam, AdamW or plain SGD. Of the other settings, `num_steps`, `batching` and
        `parameters` count.
    reduction : `str`, optional (default = `"sum"`)
        "sum" or "mean" of the tasks' gradients and losses.

    # Raises

    `ConfigurationError`, for another `reduction`, and at the first batch for another optimiser.
    """

    def summed(self, batch: TaskBatch) -> MetaGradientOutput:
        adapting = self._inner_loop.selected(batch.parameters)
        tensors = [parameter for _, parameter in batch.parameters]
        devices = sorted({tensor.device.index for tensor in tensors if tensor.device.type == "cuda"})
        total = [torch.zeros_like(tensor) for tensor in tensors]
        losses: list[torch.Tensor] = []
        losses_of = _Losses(batch.model)
        # Of the kinds of attention, this one alone has a second derivative.
        with torch.random.fork_rng(devices), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            for index, task in zip(batch.indices, batch.tasks, strict=True):
                torch.manual_seed(derived_seed(batch.seed, index))
                optimizer = self._inner_loop.make_optimizer(adapting)
                steps = DifferentiableSteps(optimizer, adapting, batch.learning_rate_scale)
                loss = self._loss(losses_of, adapting, task, steps)
                found = torch.autograd.grad(loss, tensors, allow_unused=True)
                for summed, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        summed.add_(gradient)
                losses.append(loss.detach())
        return MetaGradientOutput(torch.stack(losses).sum(), total)

    def _loss(
        self,
        losses_of: "_Losses",
        adapting: NamedParameters,
        task: dict[str, Any],
        steps: "DifferentiableSteps",
    ) -> torch.Tensor:
        """The query's loss after the inner loop, as a function of the meta parameters."""
        names = [name for name, _ in adapting]
        values: list[torch.Tensor] = [parameter for _, parameter in adapting]
        passes, (order,) = self._inner_loop.passes(Joined.of([task["support"]]))
        for number in order:
            loss = losses_of.at(names, values, passes[number])
            gradients = torch.autograd.grad(
                loss, values, create_graph=True, allow_unused=True, materialize_grads=True
            )
            values = steps(values, gradients)
        return losses_of.at(names, values, task["query"])


class _Losses(torch.nn.Module):
    """The losses of a model as what `torch.func.functional_call` can call: a module's forward pass."""

    def __init__(self, model: Learner) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.model.losses([batch]).sum()

    def at(self, names: list[str], values: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        """The loss of a batch with other values of the parameters with these names."""
        replaced = {f"model.{name}": value for name, value in zip(names, values, strict=True)}
        result: torch.Tensor = torch.func.functional_call(self, replaced, (batch,))
        return result


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
            self._step(index, group, value, gradient)
            for index, (group, value, gradient) in enumerate(
                zip(self._groups, values, gradients, strict=True)
            )
        ]

    def _step(
        self, index: int, group: dict[str, Any], value: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        lr, decay = group["lr"] * self._scale, group["weight_decay"]
        if decay and group.get("decoupled_weight_decay"):
            value = value * (1 - lr * decay)
        elif decay:
            gradient = gradient + decay * value
        if not self._adam:
            return value - lr * gradient
        return value - lr * self._direction(index, group, gradient)

    def _direction(self, index: int, group: dict[str, Any], gradient: torch.Tensor) -> torch.Tensor:
        beta1, beta2 = group["betas"]
        if self._num_steps == 1:
            # Bias correction undoes the moments of the first step. |g| has a derivative where the root of
            # its square has none.
            self._moments.append(((1 - beta1) * gradient, (1 - beta2) * gradient**2))
            return gradient / (gradient.abs() + group["eps"])
        mean, square = self._moments[index]
        mean, square = beta1 * mean + (1 - beta1) * gradient, beta2 * square + (1 - beta2) * gradient**2
        self._moments[index] = mean, square
        root = (square / (1 - beta2**self._num_steps)).clamp_min(TINY).sqrt()
        return mean / (1 - beta1**self._num_steps) / (root + group["eps"])
