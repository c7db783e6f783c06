"""Second-order MAML: the exact meta-gradient, by ordinary autograd."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from allennlp_metaner.meta.differentiable import DifferentiableSteps
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradient import MetaGradient, MetaGradientOutput, checked_reduction, reduced
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.passes import Batch, Learner
from allennlp_metaner.meta.seeds import derived_seed


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

    def __init__(self, inner_loop: Optional[InnerLoop] = None, reduction: str = "sum") -> None:
        self._inner_loop = inner_loop or InnerLoop()
        self._reduction = checked_reduction(reduction)

    def __call__(
        self,
        model: Learner,
        parameters: NamedParameters,
        tasks: Sequence[dict[str, Any]],
        seed: int,
        learning_rate_scale: float = 1.0,
    ) -> MetaGradientOutput:
        adapting = self._inner_loop.selected(parameters)
        tensors = [parameter for _, parameter in parameters]
        devices = sorted({tensor.device.index for tensor in tensors if tensor.device.type == "cuda"})
        total = [torch.zeros_like(tensor) for tensor in tensors]
        losses: list[torch.Tensor] = []
        losses_of = _Losses(model)
        # Of the kinds of attention, this one alone has a second derivative.
        with torch.random.fork_rng(devices), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            for number, task in enumerate(tasks):
                torch.manual_seed(derived_seed(seed, number))
                optimizer = self._inner_loop.make_optimizer(adapting)
                steps = DifferentiableSteps(optimizer, adapting, learning_rate_scale)
                loss = self._loss(losses_of, adapting, task, steps)
                found = torch.autograd.grad(loss, tensors, allow_unused=True)
                for summed, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        summed.add_(gradient)
                losses.append(loss.detach())
        return reduced(torch.stack(losses).sum(), total, self._reduction, len(tasks))

    def _loss(
        self,
        losses_of: "_Losses",
        adapting: NamedParameters,
        task: dict[str, Any],
        steps: DifferentiableSteps,
    ) -> torch.Tensor:
        """The query's loss after the inner loop, as a function of the meta parameters."""
        names = [name for name, _ in adapting]
        values: list[torch.Tensor] = [parameter for _, parameter in adapting]
        for batch in self._inner_loop.batches_of_steps(task["support"]):
            loss = losses_of.at(names, values, batch)
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
