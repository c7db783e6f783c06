"""Processes that `torchrun` starts, and that share out an evaluation."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import torch
import torch.distributed as dist
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.common.util import int_to_device, is_distributed
from allennlp.data import DataLoader

from allennlp_metaner.atomic import whole_file, write_whole

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)
"""So long the first process to finish may wait for the last. `torchrun` ends all if one fails."""

_evaluations = count()


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

        # Raises

        `ConfigurationError`, if there is no such GPU.
        """
        device = int_to_device(cuda_device)
        if device.type == "cuda" and self.size > 1:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        check_for_gpu(device)
        if self.size > 1:
            model.to(device)
        return device

    def share(self, batches: DataLoader) -> Iterable[Any]:
        """
        This process's batches, of those that all of them read.

        # Raises

        `ConfigurationError`, with several processes, for a loader with workers, whose batches come in no
        fixed order.
        """
        if self.size == 1:
            return batches
        if num_workers := getattr(batches, "num_workers", 0):
            raise ConfigurationError(
                f"validation_data_loader.num_workers={num_workers} with torchrun: workers deliver batches in "
                "no fixed order, so processes could not share them out. Set it to 0"
            )
        return islice(batches, self.rank, None, self.size)

    def of_all(self, own: list[T]) -> list[T]:
        """What all processes have for their batches, in the order of all batches."""
        if self.size == 1:
            return own
        gathered: list[list[T]] = [[]] * self.size
        dist.all_gather_object(gathered, own)
        return _by_turns(gathered)

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
            gathered: list[list[str]] = [[]] * self.size
            dist.gather_object(own, gathered if self.rank == 0 else None)
            if self.rank == 0:
                write_whole(path, "".join(_by_turns(gathered)).encode())


@contextmanager
def started_by_torchrun() -> Iterator[EvaluationProcesses]:
    """A context in which the processes are connected; without `torchrun`, there is but one."""
    if is_distributed() or not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield EvaluationProcesses()
        return
    shared, rank, size = next(dist.rendezvous("env://"))
    # It outlives the group, and still has the addresses of the file before.
    store = dist.PrefixStore(f"evaluation {next(_evaluations)}", shared)
    # What is gathered are counts and text, which need no GPU.
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    try:
        yield EvaluationProcesses(rank, size)
    finally:
        dist.destroy_process_group()


def _by_turns(gathered: list[list[T]]) -> list[T]:
    """As the processes have taken the batches."""
    return [each[turn] for turn in range(len(gathered[0])) for each in gathered if turn < len(each)]
