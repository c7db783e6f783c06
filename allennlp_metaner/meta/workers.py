"""Several chunks of tasks at the same time, each with the random numbers of its seed."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

import torch

C = TypeVar("C")
R = TypeVar("R")
T = TypeVar("T")


class Workers:
    """
    Threads that run a model, each on a chunk of the work.

    Some models draw random numbers where [`record`](./recording.md#record) cannot hand them a generator: from
    PyTorch's global one, which all threads share. So the first chunk that a model ever has runs alone. If it
    has drawn from there, all others run one by one, each with a seed of its own.
    """

    def __init__(self) -> None:
        self._draw: dict[bool, bool] = {}

    def map(
        self,
        work: Callable[[C, int], R],
        chunks: Sequence[C],
        seeds: Sequence[int],
        model: torch.nn.Module,
        at_a_time: int,
    ) -> list[R]:
        """
        # Parameters

        work : `Callable[[C, int], R]`
            Takes a chunk and its seed.
        chunks : `Sequence[C]`
        seeds : `Sequence[int]`
            One a chunk.
        model : `torch.nn.Module`
            What `work` runs.
        at_a_time : `int`
            How many chunks. PyTorch's threads are shared out between them.

        # Returns

        `list[R]`
            What `work` returned for each chunk. PyTorch's random state is what it was.
        """
        training, results = model.training, []
        devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
        generators = [torch.default_generator, *(torch.cuda.default_generators[n] for n in devices)]

        def watched(run: Callable[[], T]) -> T:
            """What `run` returns. Notes whether it has drawn from the global generators."""
            before = [generator.get_state() for generator in generators]
            result = run()
            after = [generator.get_state() for generator in generators]
            drawn = not all(map(torch.equal, before, after))
            self._draw[training] = self._draw.get(training, False) or drawn
            return result

        def alone(chunk: C, seed: int) -> R:
            for generator in generators:
                generator.manual_seed(seed)
            return watched(lambda: work(chunk, seed))

        jobs = list(zip(chunks, seeds, strict=True))
        # Hooks, such as those of AllenNLP's confidence checks, expect one forward pass at a time.
        one_by_one = _has_hooks(model)
        num_threads = torch.get_num_threads()
        own_threads = (max(1, num_threads // at_a_time),)
        with torch.random.fork_rng(devices):
            if at_a_time == 1:
                return [alone(*job) for job in jobs]
            try:
                with ThreadPoolExecutor(at_a_time, "inner-loop", torch.set_num_threads, own_threads) as pool:
                    while jobs and (one_by_one or self._draw.get(training, True)):
                        call = partial(copy_context().run, alone, *jobs.pop(0))
                        results.append(pool.submit(call).result())
                    # What the caller may do alone (`exclusive`), its threads may do.
                    calls = [partial(copy_context().run, work, *job) for job in jobs]
                    return results + watched(lambda: list(pool.map(lambda call: call(), calls)))
            finally:
                torch.set_num_threads(num_threads)


def _has_hooks(model: torch.nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
