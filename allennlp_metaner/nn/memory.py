"""Memory: how much there is, buffers that stay, and what Python and the C library do with what is free."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import torch

from allennlp_metaner.nn.parameters import NamedParameters


def memory_of(device: torch.device) -> int:
    """The bytes of memory that there are for a process: those of the GPU, or of the machine or container."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        found.append(int(text))
    return min(found, default=2**33)


def free_memory_of_gpu(device: torch.device) -> int:
    """What other programs and this one's tensors leave, with what PyTorch keeps for its next ones."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def bytes_of(parameters: NamedParameters) -> int:
    """What a copy of them takes."""
    return sum(parameter.numel() * parameter.element_size() for _, parameter in parameters)


def bytes_of_a_subword(model: torch.nn.Module) -> int:
    """What the backward pass keeps of a subword: the inputs and the output gradients of trainable layers."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    return 1 + sum(
        (layer.in_features + layer.out_features) * layer.weight.element_size()
        for layer in layers
        if layer.weight.requires_grad
    )


class Buffers:
    """
    Memory for the fast weights of a group of tasks, as far as they are matrices: for each task, one piece,
    which the allocator gets from the system and does not cut into its own.

    # Parameters

    parameters : `NamedParameters`
        The meta parameters.
    """

    def __init__(self, parameters: NamedParameters) -> None:
        self._ends = list(accumulate(parameter.numel() for _, parameter in parameters))
        self._pieces: dict[tuple[int, torch.dtype, torch.device], torch.Tensor] = {}

    def of_task(self, task: int, index: int, like: torch.Tensor) -> torch.Tensor:
        """The memory for the parameter at a position in the list, like `like`."""
        # The model may have moved since the last time.
        key = (task, like.dtype, like.device)
        if key not in self._pieces:
            self._pieces[key] = torch.empty(self._ends[-1], dtype=like.dtype, device=like.device)
        end = self._ends[index]
        # By `data`, autograd does not take it for changed when another part of the piece is.
        return self._pieces[key][end - like.numel() : end].view(like.shape).data

    def clear(self) -> None:
        """Give all memory back."""
        self._pieces.clear()


def give_back_free_memory() -> None:
    """
    Give memory that is free back to the system. The C library keeps it for the next time, in a heap for each
    thread, where what one has left is of no use to another.
    """
    if sys.platform == "linux":
        # Of glibc only.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """
    A context in which Python does not look for reference cycles. The inner loop makes none, but so many
    objects that Python keeps looking, through all sentences of the corpus: a quarter of a second every few
    seconds.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
