"""Going back: snapshots of parameters and of everything else that adaptation may touch."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy
import torch

NamedParameters = list[tuple[str, torch.nn.Parameter]]


def trainable_parameters(model: torch.nn.Module) -> NamedParameters:
    """The parameters of `model` that are not frozen, with their names."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


class Snapshot:
    """
    A copy of tensors' values, to be written back any number of times, bit for bit.

    # Parameters

    tensors : `Sequence[torch.Tensor]`
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = [tensor.detach() for tensor in tensors]
        self._values = [tensor.clone() for tensor in self._tensors]

    def restore(self) -> None:
        """Write the values back in place."""
        if self._tensors:
            torch._foreach_copy_(self._tensors, self._values)


@contextmanager
def preserved(model: torch.nn.Module) -> Iterator[Snapshot]:
    """
    A context after which `model` is what it was: weights, buffers, gradients, train/eval mode of every
    module, and the random state of Python, NumPy and PyTorch, bit for bit, also when an exception leaves it.

    Inside, all gradients are `None`. The context's value is the [`Snapshot`](#snapshot) of the trainable
    parameters, to go back to them in between. Frozen parameters are not copied: no optimiser reaches them.

    # Parameters

    model : `torch.nn.Module`
    """
    parameters = list(model.parameters())
    modes = [(module, module.training) for module in model.modules()]
    gradients = [parameter.grad for parameter in parameters]
    weights = Snapshot([parameter for parameter in parameters if parameter.requires_grad])
    buffers = Snapshot(list(model.buffers()))
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    # Seeding reaches all GPUs, also those that the model is not on.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            for parameter in parameters:
                parameter.grad = None
            yield weights
    finally:
        weights.restore()
        buffers.restore()
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
