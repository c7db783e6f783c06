"""Threads of OpenMP that sleep while they wait, as long as the machine is busy with something else."""

import os
import threading
import time
from glob import glob
from typing import NamedTuple, Optional

import torch

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user decides how threads wait. They are read when PyTorch is loaded."""

SECONDS_BETWEEN_LOOKS = 1.0
# Shares of the time in which this process's threads could run, but had no core.
BUSY, CALM = 0.2, 0.05
# A process that computes less than this between two looks tells nothing of the others.
LEAST_SECONDS = 0.1

_lock = threading.Lock()
_is_watched = False


class CoreTime(NamedTuple):
    """Seconds that the threads of this process ran, and that they waited for a core."""

    run: float
    waited: float


def watch_for_contention() -> None:
    """
    Let the threads that PyTorch computes with sleep while they wait for each other, as long as this process
    has to share its cores. By default they spin for about a millisecond, which is best where the cores are
    free. Beside other busy processes, a thread that spins keeps the one that it waits for off the core, and
    each of the thousands of small operations of a pass takes milliseconds instead of microseconds.

    The environment variable `OMP_WAIT_POLICY=PASSIVE` makes them sleep always, but has to be set before
    PyTorch is loaded, which `allennlp` does before it knows of plugins. GNU's OpenMP hardly spins either if
    it has more threads than there are cores. So a thread of Python looks once a second how long this process
    waits for cores, and starts some threads that sleep after one operation each, or ends them. Nothing
    happens where PyTorch has one thread, where the user has set one of `OMP_WAIT_POLICY`, `GOMP_SPINCOUNT`
    and `KMP_BLOCKTIME`, and on systems other than Linux.
    """
    global _is_watched
    if torch.get_num_threads() == 1 or core_time() is None or any(name in os.environ for name in _SETTINGS):
        return
    with _lock:
        if _is_watched:
            return
        _is_watched = True
    threading.Thread(target=_watch, name="contention", daemon=True).start()


def _after_fork_in_child() -> None:
    """A forked process has none of its parent's threads, so nobody watches."""
    global _is_watched, _lock
    _is_watched, _lock = False, threading.Lock()


# Windows cannot fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def core_time() -> Optional[CoreTime]:
    """Of all threads that there are; `None` where the system does not count it."""
    run = waited = 0
    files = glob("/proc/self/task/*/schedstat")
    for path in files:
        try:
            with open(path, encoding="ascii") as file:
                of_thread = file.read().split()
        except OSError:
            # The thread has ended.
            continue
        run += int(of_thread[0])
        waited += int(of_thread[1])
    return CoreTime(run / 1e9, waited / 1e9) if files else None


def is_contended(before: CoreTime, after: CoreTime, was_contended: bool) -> bool:
    """
    Whether the cores are shared with others, by the time waited for them between two looks.

    # Parameters

    before : `CoreTime`
    after : `CoreTime`
    was_contended : `bool`
        What was found at the last look: it takes more to change it than to keep it.

    # Returns

    `bool`
    """
    run, waited = max(0.0, after.run - before.run), max(0.0, after.waited - before.waited)
    if run + waited < LEAST_SECONDS:
        return was_contended
    return waited / (run + waited) > (CALM if was_contended else BUSY)


def _watch() -> None:
    end: Optional[threading.Event] = None
    before = core_time()
    while before is not None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        after = core_time()
        if after is None:
            return
        contended = is_contended(before, after, end is not None)
        if contended and end is None:
            end = _start_sleepers()
        elif not contended and end is not None:
            end.set()
            end = None
        before = after


def _start_sleepers() -> threading.Event:
    """Starts so many threads that OpenMP has more than there are cores; they end with the event."""
    end, num_threads = threading.Event(), torch.get_num_threads()
    # A thread computes with `num_threads`; each of the others adds as many less itself.
    for _ in range((len(os.sched_getaffinity(0)) - num_threads) // max(1, num_threads - 1) + 1):
        ready = threading.Event()
        threading.Thread(target=_sleep, args=(ready, end), name="asleep", daemon=True).start()
        ready.wait()
    return end


def _sleep(ready: threading.Event, end: threading.Event) -> None:
    # Enough elements for a parallel operation, which makes OpenMP start this thread's share of threads.
    torch.zeros(2**17).add_(1.0)
    ready.set()
    end.wait()
