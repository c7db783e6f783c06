"""The gradient of the queries alone: what meta-learning has to be better than."""

from collections.abc import Sequence
from typing import Any

import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.meta.chunks import chunks_of
from allennlp_metaner.meta.meta_gradient import MetaGradient, MetaGradientOutput, checked_reduction, reduced
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.passes import Learner
from allennlp_metaner.meta.seeds import derived_seed


@MetaGradient.register("query_only")
class QueryOnly(MetaGradient):
    """
    The gradient of the queries' losses at the meta parameters: first-order MAML (Eq. 9) with an inner
    learning rate of 0, at a third of the cost, since no support set goes through the model. It is the null
    hypothesis of meta-learning: the same tasks, masking and loss, without the inner loop.

    Registered as a `MetaGradient` with name "query_only".

    # Parameters

    chunk_size : `int`, optional (default = `384`)
        How many subwords go through the model together. Activations take memory in proportion; the result
        does not depend on it, but for rounding and the random numbers of dropout.
    reduction : `str`, optional (default = `"sum"`)
        "sum" or "mean" of the tasks' gradients and losses.

    # Raises

    `ConfigurationError`, for another `reduction`, or a `chunk_size` below 1.
    """

    def __init__(self, chunk_size: int = 384, reduction: str = "sum") -> None:
        if chunk_size < 1:
            raise ConfigurationError(f"chunk_size={chunk_size} of 'query_only' must be at least 1")
        self._chunk_size = chunk_size
        self._reduction = checked_reduction(reduction)

    def __call__(
        self,
        model: Learner,
        parameters: NamedParameters,
        tasks: Sequence[dict[str, Any]],
        seed: int,
        learning_rate_scale: float = 1.0,
    ) -> MetaGradientOutput:
        queries = [task["query"] for task in tasks]
        tensors = [parameter for _, parameter in parameters]
        devices = sorted({tensor.device.index for tensor in tensors if tensor.device.type == "cuda"})
        total = [torch.zeros_like(tensor) for tensor in tensors]
        losses: list[torch.Tensor] = []
        with torch.random.fork_rng(devices), torch.enable_grad():
            for chunk in chunks_of(queries, queries, self._chunk_size):
                torch.manual_seed(derived_seed(seed, chunk[0]))
                loss = model.losses([queries[task] for task in chunk]).sum()
                found = torch.autograd.grad(loss, tensors, allow_unused=True)
                for summed, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        summed.add_(gradient)
                losses.append(loss.detach())
        return reduced(torch.stack(losses).sum(), total, self._reduction, len(tasks))
