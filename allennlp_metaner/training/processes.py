"""What the processes of distributed training do together."""

import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Optional

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from allennlp.commands import train
from allennlp.common.util import is_distributed
from allennlp.models import Model
from allennlp.nn.parallel import DdpAccelerator, DdpWrappedModel


def rank_and_size() -> tuple[int, int]:
    """The number of this process, and how many there are; `(0, 1)` without `distributed`."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


@DdpAccelerator.register("bare")
class BareModel(DdpAccelerator):
    """
    Leaves the model as it is, but for starting all processes with the weights of the first. PyTorch's
    wrapper, AllenNLP's default, adds up gradients in the backward pass of `forward`, which meta-training
    never calls; [`ReproducibleTrainer`](./reproducible_trainer.md) adds them up itself, without a copy.

    The processes of a machine share out its cores.

    Registered as a `DdpAccelerator` with name "bare".

    # Parameters

    The same as those of `DdpAccelerator`.
    """

    def wrap_model(self, model: Model) -> tuple[Model, DdpWrappedModel]:
        processes = int(os.environ.get("ALLENNLP_PROCS_PER_NODE", self.world_size))
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
        if self.cuda_device.type != "cpu":
            model = model.cuda(self.cuda_device)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)
        return model, DdpWrappedModel(model, local_rank=self.local_rank, world_size=self.world_size)


def over_all_processes(
    loss: torch.Tensor, gradient: Sequence[torch.Tensor], size: Optional[int] = None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """
    The loss and its gradient for the batches of all processes, by one `all_reduce` of one flat buffer.

    # Parameters

    loss : `torch.Tensor`
        A scalar: that of this process.
    gradient : `Sequence[torch.Tensor]`
    size : `int`, optional (default = `None`)
        Losses that are means: over how many. `None`: they are sums, and are added up.

    # Returns

    `tuple[torch.Tensor, list[torch.Tensor]]`
        The same in every process.
    """
    weight = 1 if size is None else size
    scalars = torch.stack([loss.detach() * weight, loss.new_tensor(weight)])
    flat = torch.cat([scalars, *(tensor.flatten() for tensor in gradient)])
    flat[2:] *= weight
    dist.all_reduce(flat, dist.ReduceOp.SUM)
    if size is not None:
        flat /= flat[1].clone()
    parts: Any = flat[2:].split([tensor.numel() for tensor in gradient])
    return flat[0].clone(), [part.view_as(tensor) for part, tensor in zip(parts, gradient, strict=True)]


START_METHOD = "spawn"
"""How the processes are started, see `torch.multiprocessing`."""


def start(function: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1) -> None:
    """
    Run a function in several processes and wait for them, as `torch.multiprocessing.spawn` does, with which
    AllenNLP starts those of `distributed`: if one fails, the others are ended, and its error is raised. But
    if this process is told to end, so are they, instead of training on while it waits for them.

    # Parameters

    function : `Callable[..., Any]`
        Gets the number of the process, and `args`.
    args : `tuple[Any, ...]`, optional (default = `()`)
    nprocs : `int`, optional (default = `1`)

    # Raises

    `torch.multiprocessing.ProcessRaisedException` or `ProcessExitedException`, with the error of a process.
    """
    workers = mp.start_processes(function, args, nprocs, join=False, start_method=START_METHOD)
    try:
        while not workers.join():
            pass
    finally:
        for worker in workers.processes:
            worker.terminate()


# AllenNLP has no place for this, and needs nothing else of the module.
train.mp = SimpleNamespace(spawn=start)  # type: ignore[assignment]
