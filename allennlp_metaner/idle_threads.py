"""Threads of OpenMP that sleep while they wait, so that a busy machine stays usable."""

import os
import threading

import torch

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user decides how threads wait. They are read when PyTorch is loaded."""

_lock = threading.Lock()
_asleep = False


def let_threads_sleep() -> None:
    """
    Make the threads that PyTorch computes with sleep while they wait for each other. By default they spin for
    about a millisecond. Beside other busy processes, a thread that spins keeps the one that it waits for off
    the core, and each of the thousands of small operations of a pass takes milliseconds instead of
    microseconds.

    The environment variable `OMP_WAIT_POLICY=PASSIVE` does the same, but has to be set before PyTorch is
    loaded, which `allennlp` does before it knows of plugins. GNU's OpenMP hardly spins either if it has more
    threads than there are cores. So this starts some that sleep forever, after one operation each. Nothing
    happens where PyTorch has one thread, where the user has set one of `OMP_WAIT_POLICY`, `GOMP_SPINCOUNT`
    and `KMP_BLOCKTIME`, and on systems other than Linux.
    """
    global _asleep
    num_threads, affinity = torch.get_num_threads(), getattr(os, "sched_getaffinity", None)
    with _lock:
        if _asleep or num_threads == 1 or affinity is None or any(name in os.environ for name in _SETTINGS):
            return
        _asleep = True
    # This thread computes with `num_threads`; each of the others adds as many less itself.
    for _ in range((len(affinity(0)) - num_threads) // (num_threads - 1) + 1):
        ready = threading.Event()
        threading.Thread(target=_sleep, args=(ready,), name="asleep", daemon=True).start()
        ready.wait()


def _sleep(ready: threading.Event) -> None:
    # Enough elements for a parallel operation, which makes OpenMP start this thread's share of threads.
    torch.zeros(2**17).add_(1.0)
    ready.set()
    threading.Event().wait()
