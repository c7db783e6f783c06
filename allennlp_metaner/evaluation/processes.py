"""Processes that `torchrun` starts, and that share out an evaluation."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import torch
import torch.distributed as dist
from allennlp.common.util import int_to_device, is_distributed

from allennlp_metaner.atomic import whole_file, write_whole

T = TypeVar("T")


@dataclass
class EvaluationProcesses:
    """
    # Parameters

    rank : `int`, optional (default = `0`)
        The number of this process.
    size : `int`, optional (default = `1`)
        How many there are.
    """

    rank: int = 0
    size: int = 1

    def place(self, model: torch.nn.Module, cuda_device: Union[int, torch.device]) -> torch.device:
        """
        # Parameters

        model : `torch.nn.Module`
            On `cuda_device`. Of several processes, each moves it to the GPU of its own number.
        cuda_device : `Union[int, torch.device]`
            A negative one means the CPU.

        # Returns

        `torch.device`
            Where the model is.
        """
        device = int_to_device(cuda_device)
        if device.type == "cuda" and self.size > 1:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            model.to(device)
        return device

    def share(self, batches: Iterable[T]) -> Iterable[T]:
        """This process's batches, of those that all of them read."""
        return batches if self.size == 1 else islice(batches, self.rank, None, self.size)

    def of_all(self, own: list[T]) -> list[T]:
        """What all processes have for their batches, in the order of all batches."""
        if self.size == 1:
            return own
        gathered: list[list[T]] = [[]] * self.size
        dist.all_gather_object(gathered, own)
        return [each[turn] for turn in range(len(gathered[0])) for each in gathered if turn < len(each)]

    @contextmanager
    def writer(self, path: Optional[Path]) -> Iterator[Optional[Callable[[str], Any]]]:
        """
        Yields a function that writes what belongs to a batch, or `None` without a path. The first process's
        file has that of all, and appears whole or not at all.
        """
        if path is None:
            yield None
        elif self.size == 1:
            with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                yield file.write
        else:
            own: list[str] = []
            yield own.append
            written = self.of_all(own)
            if self.rank == 0:
                write_whole(path, "".join(written).encode())


@contextmanager
def started_by_torchrun() -> Iterator[EvaluationProcesses]:
    """A context in which the processes are connected; without `torchrun`, there is but one."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or is_distributed():
        yield EvaluationProcesses()
        return
    # What is gathered are counts and text, which need no GPU.
    dist.init_process_group("gloo")
    try:
        yield EvaluationProcesses(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
