"""Several callers at the same time have the answers that each has alone."""

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.evaluation import Evaluator
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from allennlp_metaner import NameTagger
from allennlp_metaner.concurrency import exclusive
from tests.processes import RunningProcess

A = TypeVar("A")
R = TypeVar("R")
NUM_THREADS = 8
LINES: list[dict[str, Any]] = [
    {"sentence": "Peter Smith won the Paris Open."},
    {"sentence": "The Bank of Madrid said 4 percent ; María Muñoz visitó Málaga , ¿no ?"},
    {"words": ["Anna", "Torres", "visited", "London", "on", "Monday", "."]},
    {"sentence": "Shares of Acme fell in Berlin, Ton Landia said. It rained on Monday."},
    {"words": ["It", "rained"]},
    {"sentence": "Globex beat Maria Novak in the Madrid Open"},
]


@pytest.fixture(autouse=True)
def two_threads(threads: Callable[[int], None]) -> None:
    """As the machines of users have: labelling several sentences spreads them over threads of its own."""
    threads(2)


def in_threads(function: Callable[[A], R], arguments: Sequence[A]) -> list[R]:
    """All calls begin at the same moment."""
    barrier = threading.Barrier(NUM_THREADS)

    def call(argument: A) -> R:
        barrier.wait(timeout=60)
        return function(argument)

    assert len(arguments) % NUM_THREADS == 0
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(call, arguments))


@pytest.mark.parametrize("adapt", [True, False])
def test_predictor(tiny_archive: Archive, adapt: bool) -> None:
    predictor = Predictor.from_archive(tiny_archive, extra_args={"adapt": adapt})
    lines = (LINES * NUM_THREADS)[: 3 * NUM_THREADS]
    alone = [predictor.predict_json(line) for line in lines]
    assert sum(len(output["entities"]) for output in alone) > len(lines)
    assert in_threads(predictor.predict_json, lines) == alone
    batches = [lines[number : number + 3] for number in range(NUM_THREADS)]
    together = [predictor.predict_batch_json(batch) for batch in batches]
    assert in_threads(predictor.predict_batch_json, batches) == together


def test_predictors_of_one_archive(tiny_archive: Archive) -> None:
    """Adapting and not, one model serves both."""
    predictors = [Predictor.from_archive(tiny_archive, extra_args={"adapt": n % 2 == 0}) for n in range(2)]
    calls = [(predictors[n % 2], LINES[n % len(LINES)]) for n in range(2 * NUM_THREADS)]

    def predict(call: tuple[Predictor, dict[str, Any]]) -> Any:
        return call[0].predict_json(call[1])

    assert in_threads(predict, calls) == list(map(predict, calls))


@pytest.mark.parametrize("adapt", [True, False])
def test_evaluator(tiny_run: SimpleNamespace, tiny_archive: Archive, tmp_path: Path, adapt: bool) -> None:
    evaluator = Evaluator.from_params(tiny_archive.config["evaluation"].duplicate(), adapt=adapt)

    def evaluate(language: str) -> tuple[dict[str, Any], str]:
        path = tiny_run.data / f"conll2003/eng.{language}"
        loader = MultiProcessDataLoader(tiny_archive.validation_dataset_reader, str(path), batch_size=4)
        loader.index_with(tiny_archive.model.vocab)
        output = tmp_path / f"{threading.get_ident()}.jsonl"
        return evaluator(tiny_archive.model, loader, predictions_output_file=output), output.read_text(
            "utf-8"
        )

    files = ["testa", "testb"] * (NUM_THREADS // 2)
    alone = [evaluate(name) for name in files[:2]]
    assert alone[0] != alone[1]
    assert in_threads(evaluate, files) == alone * (NUM_THREADS // 2)


def test_model(tiny_archive: Archive) -> None:
    """The model by AllenNLP's own function, while a predictor adapts it."""
    model, reader = tiny_archive.model, tiny_archive.validation_dataset_reader
    predictor = Predictor.from_archive(tiny_archive)
    words = [line.get("words") or line["sentence"].split() for line in LINES]

    def label(number: int) -> Any:
        sentence = words[number % len(words)]
        if number % 2:
            return predictor.predict_json({"words": sentence})
        instance = reader.text_to_instance(sentence)
        reader.apply_token_indexers(instance)
        output = model.forward_on_instances([instance])[0]
        return output["tags"], output["probabilities"], output["logits"].tolist()

    numbers = list(range(2 * NUM_THREADS))
    assert in_threads(label, numbers) == list(map(label, numbers))


def test_exclusive() -> None:
    """One thread at a time; those that work for whoever is in it do not wait."""
    inside, most = 0, 0

    @exclusive()
    def enter(_: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        with exclusive(), ThreadPoolExecutor(1) as pool:
            assert pool.submit(copy_context().run, exclusive()(lambda: 1)).result(timeout=60) == 1
        inside -= 1

    in_threads(enter, range(NUM_THREADS))
    assert most == 1
    # A copy of the context that outlives it gives no rights.
    with exclusive():
        context = copy_context()
    held = threading.Event()

    def late() -> None:
        with exclusive():
            held.set()

    with exclusive():
        thread = threading.Thread(target=context.run, args=(late,))
        thread.start()
        assert not held.wait(0.1)
    thread.join(timeout=60)
    assert held.is_set()


def load_and_fork(archive: str) -> None:
    """Servers load once and fork: a child's first prediction, and a later one, is its parent's, and comes."""
    import allennlp_metaner  # noqa: F401  # registers the predictor

    signal.alarm(280)
    torch.set_num_threads(2)
    predictor = Predictor.from_path(archive)

    def hold() -> None:
        """Lets a thread be inside for a moment."""
        entered = threading.Event()

        @exclusive()
        def wait() -> None:
            entered.set()
            threading.Event().wait(0.5)

        threading.Thread(target=wait, daemon=True).start()
        entered.wait()

    def predict() -> list[list[list[str]]]:
        outputs = [predictor.predict_batch_json(LINES), [predictor.predict_json(LINES[0])]]
        return [[line["tags"] for line in found] for found in outputs]

    # The parent has only loaded at first, and then predicted.
    for _ in range(2):
        hold()
        child = os.fork()
        if not child:
            signal.alarm(280)
            Path("child.json").write_text(json.dumps(predict()), "utf-8")
            os._exit(0)
        expected = predict()
        assert os.waitpid(child, 0)[1] == 0
        assert json.loads(Path("child.json").read_text("utf-8")) == expected
        os.remove("child.json")


def label_and_fork(archive: str) -> None:
    """What threads of the parent are in the middle of does not keep a child waiting for good."""
    signal.alarm(280)
    torch.set_num_threads(2)
    tagger = NameTagger.load(archive)
    numbers, ended = itertools.count(), threading.Event()

    def tags(text: str) -> list[list[str]]:
        return [sentence.tags for sentence in tagger.predict(text).sentences]

    def label() -> None:
        # Words that are new, so that the tokenizer is busy, too.
        while not ended.is_set():
            tags(" ".join(f"w{next(numbers)}" for _ in range(20)))

    expected = tags(LINES[0]["sentence"])
    threads = [threading.Thread(target=label, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for attempt in range(3):
        time.sleep(0.03 * attempt)
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(tags(LINES[0]["sentence"]) != expected)
        assert os.waitpid(child, 0)[1] == 0
    ended.set()
    for thread in threads:
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("work", [load_and_fork, label_and_fork])
def test_fork(
    work: Callable[[str], None],
    tiny_run: SimpleNamespace,
    running_process: type[RunningProcess],
    tmp_path: Path,
) -> None:
    process = running_process(work, str(tiny_run.archive), folder=tmp_path, output=tmp_path / "printed")
    assert process.finish() == 0, process.printed[-4000:]
