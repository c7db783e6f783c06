"""Fixtures that every test can use: a tiny random encoder, made here, so that no test downloads anything."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gc
import importlib
import itertools
import json
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Optional

import pytest
from filelock import FileLock

from tests.processes import RunningProcess, start_server

# PyTorch and all that is larger is imported where it is needed: the process of pytest that hands tests to
# others reads this file too.
if TYPE_CHECKING:
    from allennlp.models.archival import Archive

    from allennlp_metaner.experiments.jobs import Cell

WORDS = """the a an in of on at and said is was by for from with to meets visited won beat joined city river
bank council club company paris berlin london madrid maria peter anna novak smith torres acme globex
french german open festival monday spring rain market shares rose fell percent ##s ##er ##ing ##ton
##land ##ia . , - ( ) : 1 2 3 4 5 6 7 8 9 0"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Files whose tests need what takes longest to make come first. Of several processes of pytest, which begin
    with a part of the tests each, one alone then makes it; and what takes long does not begin at the end.
    """
    slow = {"tiny_run", "running_process"}
    first = {item.path for item in items if slow & set(getattr(item, "fixturenames", ()))}
    items.sort(key=lambda item: item.path not in first)


# Until all modules are imported, there is hardly any.
gc.disable()


def pytest_collection_finish() -> None:
    """What is imported by now stays. Looking through it for garbage takes longer than most tests."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """What is still frozen when Python ends, compiled libraries report as leaks."""
    gc.unfreeze()


def make_tiny_encoder(directory: Path, seed: int = 0, max_positions: int = 160, spread: float = 0.3) -> Path:
    """
    Write a random BERT (5 layers x 16) with a WordPiece tokenizer that can spell any ASCII word.

    A larger `spread` of the weights than BERT's 0.02 gives sentences clearly different vectors; at 0.3,
    however, the words of a sentence get nearly the same one.
    """
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    directory.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *LETTERS]
    pieces += [f"##{letter}" for letter in LETTERS]
    pieces = list(dict.fromkeys(pieces))
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True).save_pretrained(str(directory))
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=5,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=max_positions,
        initializer_range=spread,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(str(directory))
    return directory


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file can become longer than so many bytes: writing fails as on a full disk."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    return limited


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of PyTorch's threads for one test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def import_benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of `benchmarks/`. None of them stays: the demo has a module "run", too."""
    folder = Path(__file__).parents[1] / "benchmarks"
    names = [path.stem for path in folder.glob("*.py")]
    monkeypatch.syspath_prepend(str(folder))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def running_process(tmp_path_factory: pytest.TempPathFactory) -> type[RunningProcess]:
    """Starts processes that have AllenNLP imported, but not this package, and share no cache with others."""
    start_server(tmp_path_factory.mktemp("empty"))
    return RunningProcess


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny random encoder: 5 layers x 16, dropout 0.1, WordPiece."""
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny"))


@pytest.fixture(scope="session")
def tiny_word_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another one, which tells the words of a sentence apart, as a tagger needs it."""
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoders") / "words", spread=0.1))


ROOT = Path(__file__).parents[1]
PEOPLE = ["Maria Novak", "Peter Smith", "Anna Torres", "Ton Landia"]
PLACES = ["Paris", "Berlin", "London", "Madrid"]
TYPES = {"P": "PER", "L": "LOC", "G": "ORG", "M": "MISC"}
# Every word with the letter of its type; a "-" continues the entity.
TEMPLATES = [
    ("{person} visited {place} on Monday .", "P-OLOOO"),
    ("The Bank of {place} said 4 percent .", "OG--OOOO"),
    ("{person} won the {place} Open .", "P-OOM-O"),
    ("Shares of Acme fell in {place} , {person} said .", "OOGOOLOP-OO"),
    ("It rained on Monday .", "OOOOO"),
]
Sentence = tuple[list[str], list[str]]


def tiny_sentences() -> list[Sentence]:
    """80 labelled sentences, in BIO."""
    sentences = []
    for person, place in itertools.product(PEOPLE, PLACES):
        for template, letters in TEMPLATES:
            tags: list[str] = []
            for letter in letters:
                tags.append(
                    f"I-{tags[-1][2:]}" if letter == "-" else f"B-{TYPES[letter]}" if letter in TYPES else "O"
                )
            sentences.append((template.format(person=person, place=place).split(), tags))
    return sentences


def write_columns(path: Path, sentences: Sequence[Sentence], middle: str, inside: bool = False) -> None:
    """One token a line, with `middle` between word and tag; `inside` makes the tags IO, here also IOB1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for words, tags in sentences:
            for word, tag in zip(words, tags, strict=True):
                file.write(f"{word}{middle}{tag.replace('B-', 'I-') if inside else tag}\n")
            file.write("\n")


def write_universal_ner(path: Path, sentences: Sequence[Sentence]) -> None:
    """The layout of Universal NER: comments, numbered words, no MISC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number, (words, tags) in enumerate(sentences):
            file.write(f"# sent_id = {number}\n# text = {' '.join(words)}\n")
            for position, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
                file.write(f"{position}\t{word}\t{'O' if 'MISC' in tag else tag}\t-\t-\n")
            file.write("\n")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny corpora in the layout that the shipped configs expect of METANER_DATA."""
    folder = tmp_path_factory.mktemp("data")
    sentences = tiny_sentences()
    for name, part in {"train": slice(0, 40), "testa": slice(40, 50), "testb": slice(50, 60)}.items():
        write_columns(folder / f"conll2003/eng.{name}", sentences[part], " NN I-NP ", inside=True)
        write_columns(folder / f"conll2003/deu.{name}", sentences[part], " lemma NN I-NC ", inside=True)
        for language in ("esp", "ned"):
            write_columns(folder / f"conll2002/{language}.{name}", sentences[part], " NN ")
    for name in ("train", "dev", "test"):
        write_columns(folder / f"msra/{name}.bio", sentences[:40], "\t")
        for language in ("pt", "da"):
            write_universal_ner(folder / f"uner/{language}.{name}.iob2", sentences[:10])
    # The paper's split has 2,375 test sentences, so there must be more of them.
    write_columns(folder / "europeana/enp_FR.bnf.bio", sentences * 32, " ", inside=True)
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of several processes of pytest makes and all share. Tests only read it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared_{name}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def tiny_run(
    tiny_data: Path, tiny_word_encoder: str, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """
    A short meta-training by the shipped config: its `archive`, and what that was made from: `run` (the
    serialization directory), `encoder` and `data`. All processes of pytest have the same one.
    """
    root = made_once(tmp_path_factory, "run", lambda folder: train_tiny(folder, tiny_data, tiny_word_encoder))
    run = root / "run"
    return SimpleNamespace(
        archive=run / "model.tar.gz", run=run, encoder=root / "encoder", data=root / "data"
    )


def train_tiny(root: Path, tiny_data: Path, tiny_word_encoder: str, updates_per_epoch: int = 60) -> None:
    from allennlp.commands.train import train_model
    from allennlp.common import Params

    import allennlp_metaner  # noqa: F401  # registers the components

    data, encoder = root / "data", root / "encoder"
    shutil.copytree(tiny_data, data)
    shutil.copytree(tiny_word_encoder, encoder)
    # Steps so large that tags change, in training and in adaptation.
    overrides = {
        "data_loader.batch_size": 4,
        "data_loader.batches_per_epoch": updates_per_epoch,
        "trainer.num_epochs": 2,
        "trainer.optimizer.lr": 2e-2,
        "trainer.meta_gradient.inner_loop.optimizer.lr": 1e-2,
        "trainer.learning_rate_scheduler.warmup_steps": 6,
        "trainer.callbacks": [],
        "model.adaptation.inner_loop.optimizer.lr": 1e-2,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METANER_ENCODER", str(encoder))
        patch.setenv("METANER_DATA", str(data))
        patch.setenv("METANER_CACHE", str(root / "cache"))
        params = Params.from_file(str(ROOT / "training_configs/meta_en.jsonnet"), overrides)
        train_model(params, str(root / "run"))


@pytest.fixture(scope="session")
def tiny_archive(tiny_run: SimpleNamespace) -> "Archive":
    """The loaded archive of `tiny_run`, for tests that leave it as it is."""
    from allennlp.models import load_archive

    return load_archive(str(tiny_run.archive))


@pytest.fixture(scope="session")
def tiny_pseudo_labels(tiny_run: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tiny_run` says of a text, unadapted, and weights of neighbours: a folder of pseudo labels."""
    from allennlp_metaner.commands.pseudo_label import pseudo_label

    files = [str(tiny_run.data / "conll2003/eng.testb")]

    def make(folder: Path) -> None:
        pseudo_label(
            [str(tiny_run.archive)], files, folder / "labels", adapt=False, with_neighbor_weights=True
        )

    return made_once(tmp_path_factory, "pseudo_labels", make) / "labels"


class MadeUpExperiment:
    """
    A grid, and a folder as `metaner-experiment` leaves it, but nothing was trained: `base` and `full` with
    two seeds, and `no_masking` with one, on es and nl.
    """

    sentences = tiny_sentences()[:30]

    def __init__(self, folder: Path) -> None:
        self.grid, self.runs = folder / "grid.jsonnet", folder / "runs"
        for name in ("base", "full", "no_masking"):
            training = {"trainer": {"num_epochs": 2}, "data_loader": {"batches_per_epoch": 50}, "name": name}
            (folder / f"{name}.jsonnet").write_text(json.dumps(training), encoding="utf-8")
        systems = {
            "base": {"config": "base.jsonnet"},
            "full": {"config": "full.jsonnet"},
            "no_masking": {"config": "no_masking.jsonnet", "seeds": [1]},
        }
        targets = {"es": {"file": "esp.testb"}, "nl": {"file": "ned.testb"}}
        self.write_grid({"seeds": [1, 2], "systems": systems, "targets": targets})

    def write_grid(self, grid: dict[str, Any]) -> None:
        self.contents = grid
        self.grid.write_text(json.dumps(grid), encoding="utf-8")

    def cells(self, system: Optional[str] = None, target: Optional[str] = None) -> "list[Cell]":
        from allennlp_metaner.experiments.grid import read_grid

        return [
            cell
            for cell in read_grid(self.grid, self.runs)
            if system in (None, cell.system) and target in (None, cell.target)
        ]

    def write_record(self, cell: "Cell", **record: Any) -> Path:
        folder = self.runs / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps({**cell.description, **record}), encoding="utf-8")
        return folder

    def finish(self, cell: "Cell", every: int, sentences: Optional[Sequence[Sentence]] = None) -> Path:
        """A system that overlooks the entities of one of `every` sentences."""
        from allennlp_metaner.nn.span_f1 import SpanF1

        metric, lines = SpanF1(), []
        for number, (words, gold) in enumerate(self.sentences if sentences is None else sentences):
            predicted = gold if (number + cell.seed) % every else ["O"] * len(gold)
            metric([predicted], [gold])
            lines.append(json.dumps({"words": words, "gold": gold, "predicted": predicted}) + "\n")
        folder = self.write_record(
            cell, status="finished", metrics=metric.get_metric(), seconds=6.0, device="cpu"
        )
        (folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
        return folder

    def train(self, cell: "Cell", dev_f1: Sequence[float]) -> Path:
        """The training of a cell, with such F1 after each epoch."""
        folder = self.runs / cell.needs.folder
        (folder / "run").mkdir(parents=True, exist_ok=True)
        for epoch, score in enumerate(dev_f1):
            metrics = {"validation_f1-measure-overall": score, "training_loss": 3 - score}
            (folder / f"run/metrics_epoch_{epoch}.json").write_text(json.dumps(metrics), encoding="utf-8")
        record = {**cell.needs.description, "status": "finished", "seconds": 90.0, "device": "cpu"}
        (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
        return folder


@pytest.fixture
def made_up_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpExperiment:
    from allennlp_metaner.experiments import grid

    evaluate = grid._evaluate

    def read(path: Path, environment: dict[str, str], where: str) -> dict[str, Any]:
        """Its files are JSON, and Jsonnet, which sorts keys, takes longer to start than most tests."""
        try:
            text = path.read_text("utf-8")
            found: dict[str, Any] = json.loads(text, object_pairs_hook=lambda pairs: dict(sorted(pairs)))
            return found
        except (OSError, ValueError):
            return evaluate(path, environment, where)

    monkeypatch.setattr(grid, "_evaluate", read)
    return MadeUpExperiment(tmp_path)
