"""Several threads and forked processes: who may use models, tokenizers and global state, and when."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Optional, TypeVar

import torch

M = TypeVar("M")
R = TypeVar("R")

_lock = threading.Lock()
_holder: Optional[object] = None
_OWN: ContextVar[Optional[object]] = ContextVar("exclusive", default=None)


@contextmanager
def exclusive() -> Iterator[None]:
    """
    A context that one caller at a time is in; others wait. It may be entered again by who is in it, and by
    threads that run in a copy of their context (`contextvars.copy_context`).

    Labelling needs what only one caller can have: the random state and the number of threads of the process,
    the modes and the metrics of a model, the memory of an inner loop, and tokenizers, which raise "Already
    borrowed" if two threads use them. Encoders and tokenizers are even shared by models that know nothing of
    each other. So there is one such context for the whole process.
    """
    global _holder
    if _holder is not None and _OWN.get() is _holder:
        yield
        return
    with _lock:
        _holder = object()
        token = _OWN.set(_holder)
        try:
            yield
        finally:
            _holder = None
            _OWN.reset(token)


SECONDS_BEFORE_FORK = 10.0
"""For so long a fork waits for a thread that is labelling."""

_forking = threading.local()


def _before_fork() -> None:
    """What another thread is in the middle of would never end in the child, where that thread is missing."""
    is_own = _holder is not None and _OWN.get() is _holder
    _forking.has_lock = not is_own and _lock.acquire(timeout=SECONDS_BEFORE_FORK)


def _after_fork_in_parent() -> None:
    if _forking.has_lock:
        _lock.release()


def _after_fork_in_child() -> None:
    """
    A forked child has none of its parent's threads. It would wait forever for one that held the lock, and for
    those that the parent computes with: OpenMP takes them for alive.
    """
    global _lock
    _lock = threading.Lock()
    torch.set_num_threads(1)


# Windows cannot fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


class Workers:
    """
    Threads that run a model, each on a microbatch.

    Some models draw random numbers from PyTorch's global generator, which all threads share. So the first
    microbatch that a model ever has runs alone. If it has drawn from there, all others run one by one, each
    with a seed of its own.
    """

    def __init__(self) -> None:
        self._draws: dict[bool, bool] = {}

    def map(
        self,
        work: Callable[[M, int], R],
        microbatches: Sequence[M],
        seeds: Sequence[int],
        model: torch.nn.Module,
        num_workers: int,
    ) -> list[R]:
        """
        # Parameters

        work : `Callable[[M, int], R]`
            Takes a microbatch and its seed.
        microbatches : `Sequence[M]`
        seeds : `Sequence[int]`
            One a microbatch.
        model : `torch.nn.Module`
            What `work` runs.
        num_workers : `int`
            How many microbatches are worked on at the same time. PyTorch's threads are shared out between
            them.

        # Returns

        `list[R]`
            What `work` returned for each microbatch. PyTorch's random state is what it was.
        """
        devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
        generators = [torch.default_generator, *(torch.cuda.default_generators[n] for n in devices)]
        jobs = [partial(work, *job) for job in zip(microbatches, seeds, strict=True)]
        # Hooks, such as those of AllenNLP's confidence checks, expect one forward pass at a time.
        one_by_one, training = num_workers == 1 or _has_hooks(model), model.training
        num_threads, results = torch.get_num_threads(), list[R]()
        own_threads = (max(1, num_threads // num_workers),)
        with torch.random.fork_rng(devices):
            try:
                with ThreadPoolExecutor(
                    num_workers, "inner-loop", torch.set_num_threads, own_threads
                ) as pool:
                    while len(results) < len(jobs):
                        first = len(results)
                        alone = one_by_one or self._draws.get(training, True)
                        for generator in generators:
                            generator.manual_seed(seeds[first])
                        before = [generator.get_state() for generator in generators]
                        results += _run(pool, jobs[first : first + 1 if alone else None], num_workers == 1)
                        self._note_draws(training, generators, before)
                return results
            finally:
                torch.set_num_threads(num_threads)

    def _note_draws(
        self, training: bool, generators: Sequence[torch.Generator], before: Sequence[torch.Tensor]
    ) -> None:
        after = [generator.get_state() for generator in generators]
        drawn = not all(map(torch.equal, before, after))
        self._draws[training] = self._draws.get(training, False) or drawn


def _run(pool: ThreadPoolExecutor, jobs: Sequence[Callable[[], R]], here: bool) -> list[R]:
    if here:
        return [job() for job in jobs]
    # What the caller may do alone (`exclusive`), its threads may do.
    calls = [partial(copy_context().run, job) for job in jobs]
    return list(pool.map(lambda call: call(), calls))


def _has_hooks(model: torch.nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
