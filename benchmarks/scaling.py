"""
How time and memory grow: `python benchmarks/scaling.py`. Writes `docs/scaling.svg` and prints the figures.

Left: the time of a meta-gradient against the number of tasks, for encoders of several sizes (random weights,
26 subwords a sentence). Right: time and memory of exact retrieval for 1,000 queries, against the pool's size.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from random_models import random_tagger, random_tasks
from run import DIM, unit_vectors

from allennlp_metaner.meta.meta_gradients import FirstOrderMaml
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.retrieval.similarity_index import ExactIndex

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "docs" / "scaling.svg"
NUM_TASKS = (4, 8, 16, 32, 64)
SIZES = ((6, 256), (12, 384), (12, 768))
POOLS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
SUBWORDS = 26


def updates() -> dict[tuple[int, int], list[float]]:
    """Seconds of a meta-gradient, for each size and number of tasks."""
    found = {}
    for layers, hidden in SIZES:
        model, algorithm = random_tagger(hidden, layers, vocabulary=1000), FirstOrderMaml()
        parameters, tasks = trainable_parameters(model), random_tasks(max(NUM_TASKS), SUBWORDS)
        algorithm(model, parameters, tasks[:8], seed=0)
        found[layers, hidden] = []
        for number in NUM_TASKS:
            start = time.perf_counter()
            algorithm(model, parameters, tasks[:number], seed=0)
            found[layers, hidden].append(time.perf_counter() - start)
            print(f"{layers} x {hidden}, {number} tasks: {found[layers, hidden][-1]:.2f} s", flush=True)
    return found


def retrieval() -> tuple[list[float], list[float]]:
    """Seconds and MiB of anonymous memory of a search in pools on disk."""
    seconds, memory, queries = [], [], unit_vectors(1000, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        for size in POOLS:
            path = Path(folder) / "pool.npy"
            pool = np.lib.format.open_memmap(path, "w+", np.float32, (size, DIM))
            for first in range(0, size, 50_000):
                pool[first : first + 50_000] = unit_vectors(min(50_000, size - first), seed=first + 2)
            pool.flush()
            mapped = np.load(path, mmap_mode="r")
            ExactIndex().search(mapped[:5000], queries, 2)
            start = time.perf_counter()
            ExactIndex().search(mapped, queries, 2)
            seconds.append(time.perf_counter() - start)
            command = [sys.executable, str(HERE / "memory.py"), "large_pool_memory", str(path)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            memory.append(json.loads(output.splitlines()[-1])["value"])
            print(f"pool of {size:,}: {seconds[-1]:.2f} s, {memory[-1]:.0f} MiB", flush=True)
    return seconds, memory


def main() -> None:
    """Measure and draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for (layers, hidden), times in updates().items():
        left.plot(NUM_TASKS, times, marker="o", label=f"{layers} x {hidden}")
    left.set(xlabel="tasks of an update", ylabel="seconds", xscale="log", yscale="log", title="Meta-gradient")
    left.set_xticks(NUM_TASKS, map(str, NUM_TASKS))
    left.set_xticks([], minor=True)
    left.legend(title="layers x width")
    seconds, memory = retrieval()
    (time_line,) = right.plot(POOLS, seconds, marker="o", label="seconds (left axis)")
    right.set(
        xlabel="sentences in the pool", ylabel="seconds", xscale="log", yscale="log", title="1,000 queries"
    )
    beside = right.twinx()
    (memory_line,) = beside.plot(POOLS, memory, marker="s", color="tab:orange", label="MiB (right axis)")
    beside.set(ylabel="MiB of anonymous memory", ylim=(0, 2 * max(memory)))
    right.legend(handles=[time_line, memory_line])
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
