"""
The index "faiss" against "exact": `python benchmarks/approximate_search.py`. Prints a Markdown table and
writes `approximate_search.md` to the output folder.

The pool is a million vectors of 384 dimensions on disk, seeded, in clusters of about fifty within larger
ones, as sentences of a corpus crowd around topics; the queries are others from the same clusters. Each row is
a process of its own: time of a search (the best of `--rounds`), also as CPU time, which other processes on
the machine change less, recall at 2, and memory that is not mapped from files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from memory import MEBIBYTE, peak

from allennlp_metaner.analysis.markdown import markdown_table

HERE = Path(__file__).resolve().parent
DIM, K = 384, 2
ROWS_OF_A_CLUSTER, CLUSTERS_OF_A_TOPIC = 50, 100
ROWS_AT_ONCE = 50_000
EXACT = ("exact", "")
DEFAULT = "default"
INDEXES = ((DEFAULT, "nprobe=32"),)
OTHERS = (
    (DEFAULT, "nprobe=16"),
    (DEFAULT, "nprobe=64"),
    ("IVF4096,Flat", "nprobe=32"),
    ("HNSW32", "efSearch=64"),
    ("HNSW32", "efSearch=128"),
)


def clustered(size: int, num_clusters: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of unit vectors, `size` in all. The clusters are the same for every seed."""
    fixed = np.random.default_rng(0)
    topics = fixed.standard_normal((-(-num_clusters // CLUSTERS_OF_A_TOPIC), DIM), dtype=np.float32)
    clusters = 0.7 * fixed.standard_normal((num_clusters, DIM), dtype=np.float32)
    clusters += topics[np.arange(num_clusters) // CLUSTERS_OF_A_TOPIC]
    rng = np.random.default_rng(seed)
    for start in range(0, size, ROWS_AT_ONCE):
        number = min(ROWS_AT_ONCE, size - start)
        rows = clusters[rng.integers(0, num_clusters, number)]
        rows += 0.5 * rng.standard_normal((number, DIM), dtype=np.float32)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_data(folder: Path, size: int, num_queries: int) -> None:
    """Writes `pool.npy` and `queries.npy`."""
    num_clusters = max(1, size // ROWS_OF_A_CLUSTER)
    pool = np.lib.format.open_memmap(folder / "pool.npy", "w+", np.float32, (size, DIM))
    start = 0
    for block in clustered(size, num_clusters, seed=1):
        pool[start : start + len(block)] = block
        start += len(block)
    pool.flush()
    np.save(folder / "queries.npy", np.concatenate([*clustered(num_queries, num_clusters, seed=2)]))


def measure(folder: Path, rounds: int, factory: str, parameters: str) -> dict[str, Any]:
    """Builds an index, or reads it if it is there, and searches. Leaves what it finds in `folder`."""
    import torch

    from allennlp_metaner.retrieval.faiss_index import FaissIndex
    from allennlp_metaner.retrieval.similarity_index import ExactIndex

    pool = np.load(folder / "pool.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    index: Any = ExactIndex()
    if factory != EXACT[0]:
        own = None if factory == DEFAULT else factory
        index = FaissIndex(own, parameters, cache_directory=str(folder / "cache"))
        known = set(folder.glob("cache/faiss-*/index.faiss"))
        with peak() as grown:
            start = time.perf_counter()
            index.index_of(pool, K)
            found["ready"] = time.perf_counter() - start
            found["ready_memory"] = grown() / MEBIBYTE
        built = set(folder.glob("cache/faiss-*/index.faiss")) - known
        found["built"] = bool(built)
        found["file"] = max((path.stat().st_size for path in built), default=0) / MEBIBYTE
    seconds, of_cpu = [], []
    with peak() as grown:
        for _ in range(rounds):
            start, cpu = time.perf_counter(), time.process_time()
            positions, _ = index.search(pool, queries, K)
            seconds.append(time.perf_counter() - start)
            of_cpu.append(time.process_time() - cpu)
        found["search_memory"] = grown() / MEBIBYTE
    found["seconds"], found["cpu"] = min(seconds), min(of_cpu)
    if factory == EXACT[0]:
        np.save(folder / "exact.npy", positions)
    exact = np.load(folder / "exact.npy")
    found["recall"] = float(np.mean([np.isin(*row).mean() for row in zip(exact, positions, strict=True)]))
    return found


def rows(folder: Path, rounds: int, indexes: Sequence[tuple[str, str]]) -> Iterator[list[str]]:
    """The lines of the table."""
    exact = 0.0
    for factory, parameters in (EXACT, *indexes):
        command = [sys.executable, __file__, "--measure", factory, parameters, "--folder", str(folder)]
        command += ["--rounds", str(rounds)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(output.splitlines()[-1])
        print(factory, parameters, found, file=sys.stderr, flush=True)
        exact = exact or found["cpu"]
        ready = "-"
        if "ready" in found:
            file = f", {found['file']:.0f} MiB on disk" if found["built"] else ""
            ready = f"{'built' if found['built'] else 'read'} in {found['ready']:.0f} s{file}"
        yield [
            f"{factory} {parameters}".strip(),
            ready,
            f"{found.get('ready_memory', 0):.0f} MiB",
            f"{found['seconds']:.2f} s",
            f"{found['cpu']:.2f} s",
            f"{found['cpu'] / exact:.3f}",
            f"{found['recall']:.3f}",
            f"{found['search_memory']:.0f} MiB",
        ]


def main() -> None:
    """Measure and write, or, with `--measure`, print the figures of one index as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000, help="vectors of the pool")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="searches of each index; the best one counts")
    parser.add_argument("--others", action="store_true", help="also flat lists and graphs, which take long")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the table")
    parser.add_argument("--folder", type=Path, help="of data and indexes; if not given, a temporary one")
    parser.add_argument("--measure", nargs=2, metavar=("FACTORY", "PARAMETERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.folder, arguments.rounds, *arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_data(folder, arguments.size, arguments.queries)
        columns = [
            "index",
            "made",
            "memory to make",
            "search",
            "CPU time",
            "of exact's CPU time",
            "recall at 2",
            "memory to search",
        ]
        table = markdown_table(
            columns, rows(folder, arguments.rounds, [*INDEXES, *(OTHERS if arguments.others else ())]), left=2
        )
    heading = f"{arguments.queries:,} queries in {arguments.size:,} vectors of {DIM} dimensions\n\n"
    print(heading + table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "approximate_search.md").write_text(heading + table, encoding="utf-8")


if __name__ == "__main__":
    main()
