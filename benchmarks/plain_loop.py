"""
First-order MAML as one would write it with PyTorch alone, for comparison at sizes at which the published
procedure takes too long: sentences are not padded, Adam is fused, and only what is trained is copied.
"""

from collections.abc import Sequence
from typing import Any

import torch

from allennlp_metaner.nn.parameters import trainable_parameters


def meta_gradient(
    model: torch.nn.Module, tasks: Sequence[dict[str, Any]], lr: float = 3e-5, num_steps: int = 2
) -> list[torch.Tensor]:
    """The gradient of an update, task by task, in the order of the trainable parameters."""
    parameters = [parameter for _, parameter in trainable_parameters(model)]
    start = [parameter.detach().clone() for parameter in parameters]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for task in tasks:
        optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
        for _ in range(num_steps):
            optimizer.zero_grad()
            model(**task["support"])["loss"].backward()
            optimizer.step()
        optimizer.zero_grad()
        model(**task["query"])["loss"].backward()
        with torch.no_grad():
            torch._foreach_add_(total, [parameter.grad for parameter in parameters])
            torch._foreach_copy_(parameters, start)
    return total
