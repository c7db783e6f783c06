"""Measurements in a process of their own: `python memory.py NAME [ARGUMENT ...]` prints a row as JSON."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

MEBIBYTE = 2**20
INTERVAL = 0.002
"""Between two looks at the memory, in seconds."""


def anonymous_memory() -> int:
    """The resident memory of this process in bytes, without what is mapped from files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon")


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """A context that watches the memory. What it yields gives the highest growth so far, in bytes."""
    start = highest = anonymous_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(INTERVAL):
            highest = max(highest, anonymous_memory())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(highest, anonymous_memory()) - start
    finally:
        done.set()
        thread.join()


def import_time() -> dict[str, Any]:
    """Of all modules of the package, after AllenNLP's own."""
    import allennlp.commands
    import allennlp.evaluation  # noqa: F401
    from allennlp.common.util import import_module_and_submodules

    start = time.perf_counter()
    import_module_and_submodules("allennlp_metaner")
    return {"name": "import time on top of AllenNLP", "unit": "s", "value": time.perf_counter() - start}


def top_k_memory(size: str) -> dict[str, Any]:
    from run import unit_vectors

    from allennlp_metaner.retrieval.similarity_index import ExactIndex

    vectors = unit_vectors(int(size))
    ExactIndex().search(vectors[:600], vectors[:600], 2)
    with peak() as grown:
        ExactIndex().search(vectors, vectors, 2, [[number] for number in range(len(vectors))])
        found = grown()
    name = f"exact top-2, {len(vectors):,} x {len(vectors):,}: extra memory"
    return {"name": name, "unit": "MiB", "value": found / MEBIBYTE}


def large_pool_memory(path: str) -> dict[str, Any]:
    import numpy as np
    from run import unit_vectors

    from allennlp_metaner.retrieval.similarity_index import ExactIndex

    pool, queries = np.load(path, mmap_mode="r"), unit_vectors(1000, seed=1)
    with peak() as grown:
        ExactIndex().search(pool, queries, 2)
        found = grown()
    name = f"exact top-2, 1,000 queries, memory-mapped pool of {len(pool):,}: anonymous memory"
    return {"name": name, "unit": "MiB", "value": found / MEBIBYTE}


def bert_base_memory() -> dict[str, Any]:
    """
    Of a meta-gradient, in copies of the trainable parameters. Random weights, the 119,547 subwords of
    multilingual BERT, 19 subwords a sentence. Activations are kept small first, with eight tasks that go
    through all passes one by one; then comes an ordinary update of 32 tasks.
    """
    from random_models import random_tagger, random_tasks

    from allennlp_metaner.meta.inner_loop import InnerLoop
    from allennlp_metaner.meta.meta_gradient import FirstOrderMaml
    from allennlp_metaner.meta.parameters import trainable_parameters

    model, tasks = random_tagger(hidden=768, layers=12, vocabulary=119_547), random_tasks(32, length=19)
    parameters = trainable_parameters(model)
    size = sum(parameter.numel() * parameter.element_size() for _, parameter in parameters)

    def copies(algorithm: FirstOrderMaml, tasks: list[dict[str, Any]]) -> float:
        with peak() as grown:
            output = algorithm(model, parameters, tasks, seed=0)
            assert len(output.gradient) == len(parameters)
            return grown() / size

    few = copies(FirstOrderMaml(InnerLoop(chunk_size=1)), tasks[:8])
    many = copies(FirstOrderMaml(), tasks)
    return {
        "name": "memory of meta-training at BERT-base size",
        "unit": "copies",
        "value": many,
        "note": f"of {size / MEBIBYTE:.0f} MiB, activations of 32 tasks in chunks included; {few:.1f} with "
        "those of one task a worker and of eight queries",
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
