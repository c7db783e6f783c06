"""The trainable parameters of a model, and going back to what it was."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

import numpy
import torch
from allennlp.common.checks import ConfigurationError

NamedParameters = list[tuple[str, torch.nn.Parameter]]


def trainable_parameters(model: torch.nn.Module) -> NamedParameters:
    """The parameters of `model` that are not frozen, with their names."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def selected(parameters: NamedParameters, regexes: Optional[list[str]], of: str) -> NamedParameters:
    """
    The parameters whose names one of the regular expressions matches anywhere.

    # Parameters

    parameters : `NamedParameters`
    regexes : `list[str]`, optional
        `None` means all.
    of : `str`
        Whose setting `parameters` the expressions are, for the message.

    # Raises

    `ConfigurationError`, if there are none.
    """
    if regexes is None:
        return parameters
    found = [(name, p) for name, p in parameters if any(re.search(regex, name) for regex in regexes)]
    if not found:
        raise ConfigurationError(
            f"parameters={regexes} of {of} match none of the trainable parameters, which are "
            f"{', '.join(name for name, _ in parameters[:3])} ... {parameters[-1][0]}"
        )
    return found


@contextmanager
def preserved(model: torch.nn.Module) -> Iterator[None]:
    """
    A context after which `model` is what it was: buffers, train/eval mode of every module, and the random
    state of Python, NumPy and PyTorch, bit for bit, also when an exception leaves it. Weights and gradients
    are not copied: [`functional_call`](../meta/functional.md#functional_call) changes none.

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
