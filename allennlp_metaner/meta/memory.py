"""Memory: for adapted parameters, and what Python and the C library do with what is free."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import torch

from allennlp_metaner.meta.parameters import NamedParameters


class Buffers:
    """
    Memory for the adapted matrices of a group of tasks: for each task, one piece, which the allocator gets
    from the system and does not cut into its own.

    # Parameters

    parameters : `NamedParameters`
        The meta parameters.
    """

    def __init__(self, parameters: NamedParameters) -> None:
        self._ends = list(accumulate(parameter.numel() for _, parameter in parameters))
        self._pieces: dict[tuple[int, torch.dtype, torch.device], torch.Tensor] = {}

    def of(self, task: int, number: int, like: torch.Tensor) -> torch.Tensor:
        """For the parameter with this number, like `like`."""
        # The model may have moved since the last time.
        key = (task, like.dtype, like.device)
        if key not in self._pieces:
            self._pieces[key] = torch.empty(self._ends[-1], dtype=like.dtype, device=like.device)
        end = self._ends[number]
        # By `data`, autograd does not take it for changed when another part of the piece is.
        return self._pieces[key][end - like.numel() : end].view(like.shape).data

    def clear(self) -> None:
        """Give all memory back."""
        self._pieces.clear()


def give_back_free_memory() -> None:
    """
    What the C library has got back from us, and keeps for the next time, goes back to the system. It has a
    heap for each thread, where what one has left is of no use to another.
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
