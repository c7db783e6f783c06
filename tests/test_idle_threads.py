"""Threads that wait leave the cores to others: in CPU time, which a busy machine does not change."""

import os
import subprocess
import sys

import pytest

from allennlp_metaner import idle_threads

# The module alone, since importing the package takes long.
PROGRAM = """
import runpy, sys, threading, time
import torch
let_threads_sleep = runpy.run_path(sys.argv[1])["let_threads_sleep"]
x = torch.zeros(2**17)
def used():
    start = time.process_time()
    for _ in range(100):
        x.add_(1.0)
        time.sleep(0.005)
    return time.process_time() - start
used()
before = used()
let_threads_sleep()
let_threads_sleep()
print(before, used(), torch.get_num_threads(), threading.active_count())
"""


def measured(**environment: str) -> tuple[float, float, int, int]:
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", PROGRAM, str(idle_threads.__file__)]
    output = subprocess.run(
        command, env={**settings, **environment}, capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    return float(output[0]), float(output[1]), int(output[2]), int(output[3])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: OpenMP has one thread")
def test_waiting_threads_sleep() -> None:
    before, after, num_threads, _ = measured(OMP_NUM_THREADS="2")
    assert num_threads == 2
    assert before > 0.05
    assert after < before / 3


@pytest.mark.parametrize("setting", [{"OMP_NUM_THREADS": "1"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_nothing_happens_where_it_makes_no_difference_or_is_not_wanted(setting: dict[str, str]) -> None:
    assert measured(**setting)[3] == 1
