"""The trainable parameters of a model, and going back to what it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch

NamedParameters = list[tuple[str, torch.nn.Parameter]]


def trainable_parameters(model: torch.nn.Module) -> NamedParameters:
    """The parameters of `model` that are not frozen, with their names."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


@contextmanager
def preserved(model: torch.nn.Module) -> Iterator[None]:
    """
    A context after which `model` is what it was: buffers, train/eval mode of every module, and the random
    state of Python, NumPy and PyTorch, bit for bit, also when an exception leaves it. Weights and gradients
    are not copied: [`record`](./recording.md#record) changes none.

    # Parameters

    model : `torch.nn.Module`
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    # Seeding reaches all GPUs, also those that the model is not on.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for buffer, value in buffers:
            buffer.copy_(value)
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        for module, mode in modes:
            module.training = mode
