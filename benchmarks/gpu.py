"""
What a GPU makes of all this, in one command sized for less than eight minutes: `python benchmarks/gpu.py`.

Compares the two executions of the inner loop at the size of multilingual BERT (random weights, which are as
fast as trained ones), predicted with measured memory, and the GPU with the CPU by the F1 of a short training.
`--device cpu --quick` is a trial of the program itself, on tiny models.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import workload
from allennlp.common import Lazy
from allennlp.nn.util import move_to_device
from allennlp.training.optimizers import AdamOptimizer
from run import unit_vectors
from transformers import BertConfig, BertModel, BertTokenizerFast

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import FirstOrderMaml
from allennlp_metaner.meta.stacked_weights import predicted_memory
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn.collate import num_subwords
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.retrieval.sentence_encoder import TransformerSentenceEncoder
from allennlp_metaner.retrieval.similarity_index import ExactIndex

MEBIBYTE = 2**20
ADAM_COPIES = 2
"""Of the weights of a task, in two steps of Adam."""


class Size(NamedTuple):
    """How large everything is."""

    layers: int
    hidden: int
    num_tasks: tuple[int, ...]
    rounds: int
    pool: int
    updates: int


FULL = Size(layers=12, hidden=768, num_tasks=(1, 8, 32), rounds=5, pool=100_000, updates=60)
QUICK = Size(layers=4, hidden=32, num_tasks=(1, 4), rounds=1, pool=500, updates=2)


def random_encoder(folder: Path, layers: int, hidden: int) -> str:
    """A BERT with random weights, and a tokenizer that knows the words of the demo and can spell others."""
    words = {word for path in workload.DEMO.glob("*.bio") for word in path.read_text("utf-8").split()}
    letters = sorted({letter for word in words for letter in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words), *letters]
    pieces += [f"##{letter}" for letter in letters]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(str(folder))
    config = BertConfig(
        vocab_size=len(dict.fromkeys(pieces)),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        intermediate_size=4 * hidden,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(str(folder))
    return str(folder)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, rounds: int, work: Callable[[], Any]) -> float:
    """The best of some rounds, after one that does not count."""
    work()
    found = []
    for _ in range(rounds):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def row(name: str, value: Optional[float], unit: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit}


def loop_against_batched(
    device: torch.device, size: Size, model: MaxLossTagger, tasks: list[Any]
) -> Iterator[dict[str, Any]]:
    """Meta-gradients and adaptation in both executions, and the memory of the batched one."""
    model.to(device).train()
    parameters, tasks = trainable_parameters(model), move_to_device(tasks, device)
    for number in size.num_tasks:
        own = (tasks * number)[:number]
        for execution in ("per_task", "batched"):
            maml = FirstOrderMaml(InnerLoop(Lazy(AdamOptimizer, lr=3e-5), execution=execution))
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            best = seconds(
                device, size.rounds, lambda maml=maml, own=own: maml(model, parameters, own, seed=0)
            )
            yield row(f"meta-gradient of {number} tasks, {execution}", number / best, "tasks/s")
            if device.type == "cuda":
                most = torch.cuda.max_memory_allocated(device) - before
                yield row(f"memory of {number} tasks, {execution}", most / MEBIBYTE, "MiB")
        lengths = [[num_subwords(task[part]) for task in own] for part in ("support", "query")]
        predicted = predicted_memory(model, parameters, ADAM_COPIES, 2, *lengths)
        yield row(f"memory of {number} tasks, batched, predicted", predicted / MEBIBYTE, "MiB")
    for execution in ("per_task", "batched"):
        loop = InnerLoop(Lazy(AdamOptimizer, lr=1e-5), num_steps=1, execution=execution)
        adaptation = TestTimeAdaptation(loop)
        best = seconds(device, size.rounds, lambda adaptation=adaptation: adaptation.predict(model, tasks))
        yield row(f"adaptation, {execution}", len(tasks) / best, "sentences/s")


def retrieval(device: torch.device, size: Size, encoder: str, load: Any) -> Iterator[dict[str, Any]]:
    """Encoding a pool, and its exact search, which is on the CPU."""
    index = device.index or 0 if device.type == "cuda" else None
    sentences = [words_and_tags(instance)[0] for instance in load.instances]
    sentence_encoder = TransformerSentenceEncoder(encoder, cuda_device=index)
    best = seconds(device, 1, lambda: sentence_encoder.encode(sentences))
    yield row("encoding a pool", len(sentences) / best, "sentences/s")
    pool, queries = unit_vectors(size.pool), unit_vectors(min(1000, size.pool), seed=1)
    best = seconds(device, 1, lambda: ExactIndex().search(pool, queries, 2))
    yield row(f"exact top-2 of {len(queries):,} queries in {len(pool):,} (CPU)", best, "s")


def trained_f1(device: torch.device, size: Size, load: Any) -> float:
    """Of the English dev sentences, after some meta updates from the same start."""
    torch.manual_seed(0)
    model = MaxLossTagger(load.model.vocab, load.model.text_field_embedder, frozen_layers=0).to(device)
    parameters, tasks = trainable_parameters(model), move_to_device(load.tasks, device)
    optimizer = torch.optim.Adam([parameter for _, parameter in parameters], lr=1e-3)
    maml = FirstOrderMaml(InnerLoop(Lazy(AdamOptimizer, lr=1e-4)))
    for update in range(size.updates):
        own = [tasks[(16 * update + n) % len(tasks)] for n in range(16)]
        output = maml(model.train(), parameters, own, seed=update)
        for (_, parameter), gradient in zip(parameters, output.gradient, strict=True):
            parameter.grad = gradient
        optimizer.step()
    model.eval()
    reader = ColumnReader({"tokens": WordTransformerIndexer(load.encoder)}, num_columns=2, scheme="BIO")
    with torch.no_grad():
        for instance in reader.read(str(workload.DEMO / "english.dev.bio")):
            reader.apply_token_indexers(instance)
            model.forward_on_instance(instance)
    return model.get_metrics(reset=True)["f1-measure-overall"]


def measure(device: torch.device, size: Size, folder: Path) -> Iterator[dict[str, Any]]:
    os.environ["METANER_ENCODER"] = encoder = random_encoder(folder / "large", size.layers, size.hidden)
    load = workload.load(max(size.num_tasks))
    yield from loop_against_batched(device, size, load.model, load.tasks)
    load.model.cpu()
    yield from retrieval(device, size, encoder, load)
    os.environ["METANER_ENCODER"] = random_encoder(folder / "small", 4, 32 if size is QUICK else 128)
    for each in dict.fromkeys((torch.device("cpu"), device)):
        yield row(
            f"F1 after {size.updates} updates, {each.type}", trained_f1(each, size, workload.load(256)), ""
        )


def main(arguments: Optional[list[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the program")
    parser.add_argument("--quick", action="store_true", help="tiny models: the figures mean nothing")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 in matrix products")
    parser.add_argument("--output", type=Path, help="where the figures go as JSON lines")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no GPU here that PyTorch can use. To try the program: --device cpu --quick")
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {'TF32' if options.tf32 else 'float32'}", flush=True)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for each in measure(device, QUICK if options.quick else FULL, Path(folder)):
            print(f"{each['name']}: {each['value']:,.4g} {each['unit']}", flush=True)
            if options.output:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"device": name, **each}) + "\n")


if __name__ == "__main__":
    main()
