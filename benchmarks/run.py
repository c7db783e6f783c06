"""
All speed figures, measured side by side in one run: `make bench`, or `make bench-quick`.

Writes `results.json` and `results.md` to the output folder. Each row compares this package with a baseline on
the same encoder, sentences and tasks; the two take turns, and the medians of their times are compared.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Optional

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import plain_loop
import torch
import transformers
import workload
from allennlp.common import Lazy
from allennlp.data import Vocabulary
from allennlp.data.token_indexers import PretrainedTransformerMismatchedIndexer
from allennlp.training.optimizers import AdamOptimizer
from published_procedure import LENGTH, adapt_and_label, meta_gradient
from random_models import random_tagger, random_tasks
from transformers import AutoModel, AutoTokenizer

from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import FirstOrderMaml
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.nn.linear import linear
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.retrieval.sentence_encoder import TransformerSentenceEncoder
from allennlp_metaner.retrieval.similarity_index import ExactIndex

HERE = Path(__file__).resolve().parent
DIM = 384


def row(
    name: str,
    unit: str,
    value: Optional[float],
    baseline: Optional[float] = None,
    *,
    ratio: Optional[float] = None,
    goal: str,
    note: str = "",
    dtype: str = "float32",
    device: str = "cpu",
) -> dict[str, Any]:
    """One line of the table; `ratio` is `value / baseline` if it is not given."""
    if ratio is None and value is not None and baseline:
        ratio = value / baseline
    return {
        "name": name,
        "dtype": dtype,
        "value": value,
        "baseline": baseline,
        "ratio": ratio,
        "unit": unit,
        "device": device,
        "threads": torch.get_num_threads(),
        "goal": goal,
        "note": note,
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": transformers.__version__,
            "allennlp": version("allennlp"),
        },
    }


def take_turns(rounds: int, *functions: Callable[[], Any]) -> list[float]:
    """The median time of each function in seconds. They take turns, so that a slow phase hits them all."""
    return list(map(median, all_times(rounds, *functions)))


def all_times(rounds: int, *functions: Callable[[], Any]) -> list[list[float]]:
    """Of each function in seconds. They take turns, after one turn that is not counted."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return times


def gemm_peak() -> tuple[float, float]:
    """FLOP/s of float32 matrix products: of PyTorch's default, and of what this package uses."""
    best = [0.0, 0.0]
    for rows, inner, columns in ((2048, 2048, 2048), (1664, 384, 1536), (416, 384, 1536)):
        a, b = torch.randn(rows, inner), torch.randn(columns, inner)
        for kind, function in enumerate((torch.nn.functional.linear, linear)):
            for _ in range(30):
                start = time.perf_counter()
                function(a, b)
                best[kind] = max(best[kind], 2 * rows * inner * columns / (time.perf_counter() - start))
    return best[0], best[1]


def flops(config: Any, tokens: float, length: float, backward: bool) -> float:
    """
    Of `tokens` real subwords in sentences of `length`, through all layers. Forward, a layer costs 2 FLOPs for
    each of its 4 h^2 + 2 h i weights and 4 h L for attention; backward, a trainable one twice as much, of
    which the lowest saves the gradient of its inputs (3 h^2 weights: nothing below it is trained).
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    weights = 4 * hidden**2 + 2 * hidden * inner
    layer = 2 * weights + 4 * hidden * length
    trainable = config.num_hidden_layers - workload.FROZEN_LAYERS
    total = config.num_hidden_layers * layer
    if backward:
        total += trainable * 2 * layer - 2 * 3 * hidden**2
    return tokens * total


def learning(load: workload.Workload, quick: bool) -> Iterator[dict[str, Any]]:
    """Meta-training and adaptation, and their share of what the hardware can do."""
    parameters = trainable_parameters(load.model)
    algorithm = FirstOrderMaml()
    adaptation = TestTimeAdaptation(InnerLoop(Lazy(AdamOptimizer, lr=1e-5), num_steps=1))
    few, many = (4, 16) if quick else (16, 64)
    tasks, published = load.tasks[:many], load.published_tasks[:few]

    def ours() -> None:
        load.model.train()
        for first in range(0, len(tasks), 32):
            algorithm(load.model, parameters, tasks[first : first + 32], seed=0)

    rounds = 1 if quick else 3
    # The machine's speed varies. A share of its peak is taken of the best round, and of the best product
    # before, between and after.
    peaks = [gemm_peak()]
    tokens = ", ".join(f"{number:.0f} subwords a {part}" for part, number in load.num_tokens.items())
    own, theirs = all_times(rounds, ours, lambda: meta_gradient(load.published_model, published))
    speed = len(tasks) / min(own)
    yield row(
        "meta-training",
        "tasks/s",
        len(tasks) / median(own),
        few / median(theirs),
        goal="4x, aim 8x",
        note=tokens,
    )
    own, theirs = all_times(
        rounds,
        lambda: adaptation.predict(load.model, tasks),
        lambda: adapt_and_label(load.published_model, published),
    )
    adapted = len(tasks) / min(own)
    peaks.append(gemm_peak())
    yield row("adaptation", "sentences/s", len(tasks) / median(own), few / median(theirs), goal="6x, aim 12x")

    config = load.published_model.encoder.config
    support, query = load.num_tokens["support"], load.num_tokens["query"]
    of_task = 2 * flops(config, support, support / 2, True) + flops(config, query, query, True)
    of_sentence = flops(config, support, support / 2, True) + flops(config, query, query, False)
    peaks.append(gemm_peak())
    default, peak = (max(found) for found in zip(*peaks, strict=True))
    for name, done in (("meta-training", speed * of_task), ("adaptation", adapted * of_sentence)):
        yield row(
            f"{name}: useful FLOP/s",
            "GFLOP/s",
            done / 1e9,
            peak / 1e9,
            goal="25 %, aim 50 %",
            note=f"at its best, of the best GEMM; {100 * done / default:.0f} % of PyTorch's default GEMM",
        )


def bert_base(num_tasks: int) -> Iterator[dict[str, Any]]:
    """Meta-training of nine layers of twelve, with the width of multilingual BERT."""
    model, tasks = random_tagger(hidden=768, layers=12, vocabulary=1000), random_tasks(num_tasks, length=19)
    parameters, algorithm = trainable_parameters(model), FirstOrderMaml()
    own, plain = take_turns(
        3,
        lambda: algorithm(model, parameters, tasks, seed=0),
        lambda: plain_loop.meta_gradient(model, tasks),
    )
    yield row(
        "meta-training at BERT-base size",
        "tasks/s",
        num_tasks / own,
        num_tasks / plain,
        goal="1.6x",
        note="baseline: a plain loop, without padding, with a fused Adam; sentences of 19 subwords",
    )


def encoding(load: workload.Workload, quick: bool) -> Iterator[dict[str, Any]]:
    sentences = [words_and_tags(instance)[0] for instance in load.instances]
    few, many = (100, 400) if quick else (200, 2000)
    model = AutoModel.from_pretrained(load.encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(load.encoder)
    encoder = TransformerSentenceEncoder(load.encoder)
    middle = TransformerSentenceEncoder(load.encoder, pooling="mean", layer="middle")

    def padded() -> None:
        for first in range(0, few, 100):
            inputs = tokenizer(
                sentences[first : first + 100],
                is_split_into_words=True,
                padding="max_length",
                truncation=True,
                max_length=LENGTH,
                return_tensors="pt",
            )
            with torch.no_grad():
                vectors = model(**inputs).last_hidden_state[:, 0]
                torch.nn.functional.normalize(vectors, dim=1).numpy()

    chosen = sentences[:many]
    own, half, theirs = take_turns(
        1 if quick else 3, lambda: encoder.encode(chosen), lambda: middle.encode(chosen), padded
    )
    yield row("pool encoding", "sentences/s", len(chosen) / own, few / theirs, goal="5x, aim 10x")
    yield row(
        "pool encoding, vectors of the middle layer",
        "sentences/s",
        len(chosen) / half,
        len(chosen) / own,
        note="as in the small configs; baseline: vectors of the last layer, as in the row above",
    )


def subwords(load: workload.Workload, quick: bool) -> Iterator[dict[str, Any]]:
    sentences = [instance["tokens"].tokens for instance in load.instances]  # type: ignore[attr-defined]
    vocab = Vocabulary()
    theirs = PretrainedTransformerMismatchedIndexer(load.encoder)

    def index(indexer: Any) -> None:
        for sentence in sentences:
            indexer.tokens_to_indices(sentence, vocab)

    # A new one each time: the first pass over the corpus counts, in which every word is new.
    own, baseline = take_turns(
        1 if quick else 3, lambda: index(WordTransformerIndexer(load.encoder)), lambda: index(theirs)
    )
    yield row(
        "words to subwords",
        "sentences/s",
        len(sentences) / own,
        len(sentences) / baseline,
        goal="8x, aim 12x",
        note="the first pass over the corpus; later ones are faster",
    )


def unit_vectors(number: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((number, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def top_k(quick: bool) -> Iterator[dict[str, Any]]:
    pool = unit_vectors(3000 if quick else 14041)
    exclude = [[number] for number in range(len(pool))]

    def full() -> None:
        products = torch.from_numpy(pool) @ torch.from_numpy(pool).T
        products.fill_diagonal_(-torch.inf)
        products.argsort(dim=1, descending=True)[:, :2].clone()

    own, theirs = take_turns(1 if quick else 3, lambda: ExactIndex().search(pool, pool, 2, exclude), full)
    size = f"{len(pool):,} x {len(pool):,}"
    yield row(
        f"exact top-2, {size}",
        "queries/s",
        len(pool) / own,
        len(pool) / theirs,
        goal="12x",
        note="random vectors",
    )
    yield from in_process("top_k_memory", len(pool), goal="under 256 MB")


def large_pool(quick: bool) -> Iterator[dict[str, Any]]:
    size = 100_000 if quick else 1_000_000
    queries = unit_vectors(1000, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.npy"
        pool = np.lib.format.open_memmap(path, "w+", np.float32, (size, DIM))
        for first in range(0, size, 50_000):
            pool[first : first + 50_000] = unit_vectors(min(50_000, size - first), seed=first + 2)
        pool.flush()
        mapped = np.load(path, mmap_mode="r")

        def product() -> None:
            for first in range(0, size, 8192):
                linear(torch.from_numpy(queries), torch.tensor(mapped[first : first + 8192]))

        own, theirs = take_turns(1, lambda: ExactIndex().search(mapped, queries, 2), product)
        yield row(
            f"exact top-2, 1,000 queries, memory-mapped pool of {size:,}",
            "s",
            own,
            theirs,
            ratio=own / theirs,
            goal="at most 2x the time of the product, aim 1.3x",
            note="baseline: the fastest matrix product there is, alone, in blocks",
        )
        yield from in_process("large_pool_memory", str(path), goal="under 512 MB")


def in_process(name: str, *arguments: Any, goal: str) -> Iterator[dict[str, Any]]:
    """A measurement of `memory.py`, in a process of its own."""
    command = [sys.executable, str(HERE / "memory.py"), name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    yield row(goal=goal, **found)


def measure(quick: bool) -> Iterator[dict[str, Any]]:
    yield from in_process("import_time", goal="under 0.5 s")
    load = workload.load(16 if quick else 64)
    yield from learning(load, quick)
    yield from encoding(load, quick)
    yield from subwords(load, quick)
    yield from top_k(quick)
    yield from large_pool(quick)
    if not quick:
        yield from bert_base(num_tasks=32)
        yield from in_process("bert_base_memory", goal="at most 4 copies, aim 2")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| what | dtype | here | baseline | ratio | goal | note |", "|---|---|---|---|---|---|---|"]
    for each in rows:
        value, baseline, ratio = (
            "-" if each[key] is None else f"{each[key]:,.3g}" if each[key] < 1000 else f"{each[key]:,.0f}"
            for key in ("value", "baseline", "ratio")
        )
        lines.append(
            f"| {each['name']} | {each['dtype']} | {value} {each['unit']} | {baseline} | {ratio} "
            f"| {each['goal']} | {each['note']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--quick", action="store_true", help="smaller sizes and one round")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results.json and results.md")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    start = time.monotonic()
    for each in measure(arguments.quick):
        rows.append(each)
        print(f"[{time.monotonic() - start:4.0f} s]", table([each]).splitlines()[-1], flush=True)
        # After every row, so that an interrupted run leaves what it has found.
        (arguments.output / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        (arguments.output / "results.md").write_text(table(rows), encoding="utf-8")
    print(f"\nWrote results.json and results.md to {arguments.output}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
