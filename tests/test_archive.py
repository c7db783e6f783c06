"""An archive carries everything: the real commands, where nothing it was made from is left."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.evaluation import Evaluator
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

ROOT = Path(__file__).parents[1]
SPANISH_LAYOUT = {"num_columns": 3, "scheme": "BIO"}
LINES: list[dict[str, Any]] = [
    {"words": ["Peter", "Smith", "won", "the", "Paris", "Open", "."]},
    {"sentence": "María Muñoz visitó Málaga, ¿no?"},
    {"sentence": "王小明访问了北京。"},
]


@contextmanager
def hidden(path: Path) -> Iterator[None]:
    away = path.with_name(path.name + ".hidden")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """An `allennlp` command that runs in `folder`, without a hub and without a trace of earlier runs."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("METANER_")}
    environment.update(
        PYTHONPATH=str(ROOT),
        METANER_CACHE=str(folder / "vectors"),
        HF_HOME=str(folder / "hub"),
        ALLENNLP_CACHE_ROOT=str(folder / "allennlp"),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        OMP_NUM_THREADS="1",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "allennlp", *arguments, "--include-package", "allennlp_metaner"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-4000:]


def test_contents(tiny_run: SimpleNamespace) -> None:
    with tarfile.open(tiny_run.archive) as archive:
        names = {name.rsplit("/", 1)[-1] for name in archive.getnames()}
    assert {"tokenizer.json", "model.safetensors", "sentences.jsonl", "vectors.npy", "weights.th"} <= names


def test_predict_and_evaluate_with_nothing_but_the_archive(
    tiny_run: SimpleNamespace, tiny_archive: Archive, tmp_path: Path
) -> None:
    predictor = Predictor.from_archive(tiny_archive)
    expected = predictor.predict_batch_json(LINES)
    target = tiny_run.data / "conll2002/esp.testb"
    shutil.copy(tiny_run.archive, tmp_path / "model.tar.gz")
    shutil.copy(target, tmp_path / "esp.testb")
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES), "utf-8")
    with ExitStack() as stack:
        for path in (tiny_run.run, tiny_run.encoder, tiny_run.data):
            stack.enter_context(hidden(path))
        # Both at once: most of the time goes into importing AllenNLP.
        predict = command(
            tmp_path, "predict", "model.tar.gz", "lines.jsonl", "--output-file", "out.jsonl", "--silent"
        )
        overrides = json.dumps(
            {f"validation_dataset_reader.base_reader.{key}": value for key, value in SPANISH_LAYOUT.items()}
        )
        evaluate = command(
            tmp_path,
            "evaluate",
            "model.tar.gz",
            "esp.testb",
            "-o",
            overrides,
            "--output-file",
            "metrics.json",
        )
        finish(predict)
        finish(evaluate)
    predicted = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [p["tags"] for p in predicted] == [e["tags"] for e in expected]
    for ours, theirs in zip(predicted, expected, strict=True):
        assert [n["words"] for n in ours["support"]] == [n["words"] for n in theirs["support"]]
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    # The Spanish file has the same sentences as the English one, in another layout.
    assert metrics == pytest.approx(
        evaluate_here(tiny_archive, tiny_run.data / "conll2003/eng.testb"), rel=1e-4
    )


def evaluate_here(archive: Archive, path: Path) -> dict[str, float]:
    from allennlp.data.data_loaders import MultiProcessDataLoader

    loader = MultiProcessDataLoader(archive.validation_dataset_reader, str(path), batch_size=32)
    loader.index_with(archive.model.vocab)
    return Evaluator.from_params(archive.config["evaluation"].duplicate())(archive.model, loader)
