"""
Threads that wait leave the cores to others while the machine is busy, and spin otherwise: in CPU time, which
a busy machine does not change.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest
import torch

from allennlp_metaner import idle_threads
from allennlp_metaner.idle_threads import CoreTime, core_time, is_contended

# The module alone, since importing the package takes long.
PROGRAM = """
import runpy, sys, threading, time
import torch
module = runpy.run_path(sys.argv[1])
x = torch.zeros(2**17)
def used():
    start = time.process_time()
    for _ in range(100):
        x.add_(1.0)
        time.sleep(0.005)
    return time.process_time() - start
used()
before = used()
end = module["_start_sleepers"]()
asleep = used()
end.set()
while any(thread.name == "asleep" for thread in threading.enumerate()):
    time.sleep(0.01)
# A thread of Python is gone a little before what OpenMP keeps for it.
time.sleep(0.5)
afterwards = used()
threads = threading.active_count()
module["watch_for_contention"]()
print(before, asleep, afterwards, threading.active_count() - threads)
"""


def printed(program: str, **environment: str) -> list[float]:
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", program, str(idle_threads.__file__)]
    output = subprocess.run(
        command, env={**settings, **environment}, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    return list(map(float, output.split()))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: OpenMP has one thread")
def test_waiting_threads_sleep_until_they_may_spin_again() -> None:
    before, asleep, afterwards, watching = printed(PROGRAM, OMP_NUM_THREADS="2")
    assert before > 0.05
    assert asleep < before / 3
    assert afterwards > before / 2
    assert watching == 1


@pytest.mark.parametrize(
    ("num_threads", "setting", "is_watched"),
    [
        (2, {}, True),
        (1, {}, False),
        (2, {"OMP_WAIT_POLICY": "ACTIVE"}, False),
        (2, {"GOMP_SPINCOUNT": "0"}, False),
        (2, {"KMP_BLOCKTIME": "0"}, False),
    ],
)
def test_nothing_is_watched_where_it_makes_no_difference_or_is_not_wanted(
    num_threads: int,
    setting: dict[str, str],
    is_watched: bool,
    monkeypatch: pytest.MonkeyPatch,
    threads: Callable[[int], None],
) -> None:
    for name in idle_threads._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    started = threading.Event()
    monkeypatch.setattr(idle_threads, "_is_watched", False)
    monkeypatch.setattr(idle_threads, "_watch", started.set)
    threads(num_threads)
    idle_threads.watch_for_contention()
    assert started.wait(30 if is_watched else 0.1) == is_watched


def test_time_of_all_threads() -> None:
    before = core_time()
    assert before is not None
    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        pass
    after = core_time()
    assert after is not None and after.run - before.run > 0.25 and after.waited >= before.waited


@pytest.mark.parametrize(
    ("run", "waited", "was_contended", "found"),
    [
        (2.0, 0.0, False, False),
        (2.0, 0.0, True, False),
        (1.0, 1.0, False, True),
        # In between, all stays as it is.
        (1.8, 0.2, False, False),
        (1.8, 0.2, True, True),
        # Too little to tell.
        (0.01, 0.02, False, False),
        (0.0, 0.0, True, True),
        # Threads that ended took their time with them.
        (-1.0, -1.0, True, True),
    ],
)
def test_is_contended(run: float, waited: float, was_contended: bool, found: bool) -> None:
    assert is_contended(CoreTime(5, 5), CoreTime(5 + run, 5 + waited), was_contended) is found


def test_sleepers_come_with_contention_and_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(idle_threads, "SECONDS_BETWEEN_LOOKS", 0.01)
    calm, asleep = threading.Event(), list[int]()

    def looks() -> Iterator[CoreTime | None]:
        waited = 0.0
        for number in chain(range(5), repeat(5)):
            waited += 1.0 if not calm.is_set() else 0.0
            yield CoreTime(number, waited)
            asleep.append(sum(thread.name == "asleep" for thread in threading.enumerate()))
            if asleep[-1]:
                calm.set()
            if calm.is_set() and not asleep[-1]:
                yield None

    found = looks()
    monkeypatch.setattr(idle_threads, "core_time", lambda: next(found, None))
    monkeypatch.setattr(idle_threads, "is_contended", lambda before, after, was: after.waited > before.waited)
    watch = threading.Thread(target=idle_threads._watch)
    watch.start()
    watch.join(30)
    assert not watch.is_alive()
    assert asleep[0] == 0 and max(asleep) >= 1 and asleep[-1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_nobody_watches_in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it asks for that itself: it has none of its parent's threads."""
    monkeypatch.setattr(idle_threads, "_is_watched", True)
    child = os.fork()
    if not child:
        os._exit(int(idle_threads._is_watched))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert idle_threads._is_watched
