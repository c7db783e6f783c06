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
    Of meta-gradients, in copies of the trainable parameters. Random weights, the 119,547 subwords of
    multilingual BERT. First two updates of eight tasks with sentences of three subwords, one by one in each
    worker, so that there are hardly any activations; then one of 32 tasks with sentences of 19 subwords.
    """
    from random_models import random_tagger, random_tasks

    from allennlp_metaner.meta.inner_loop import InnerLoop
    from allennlp_metaner.meta.meta_gradients import FirstOrderMaml
    from allennlp_metaner.nn.parameters import trainable_parameters

    model = random_tagger(hidden=768, layers=12, vocabulary=119_547)
    parameters = trainable_parameters(model)
    size = sum(parameter.numel() * parameter.element_size() for _, parameter in parameters)
    tiny, real = random_tasks(8, length=3), random_tasks(32, length=19)
    # One watch for all: what the allocator keeps of an update counts for the next one.
    with peak() as grown:
        one_by_one = FirstOrderMaml(InnerLoop(microbatch_size=1))
        for seed in range(2):
            one_by_one(model, parameters, tiny, seed=seed)
        without_activations = grown() / size
        FirstOrderMaml()(model, parameters, real, seed=0)
        with_activations = grown() / size
    return {
        "name": "memory of meta-training at BERT-base size",
        "unit": "copies",
        "value": without_activations,
        "note": f"of {size / MEBIBYTE:.0f} MiB; {with_activations:.1f} with the activations of 32 tasks",
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
