"""An archive carries everything: the real commands, where nothing it was made from is left."""

import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.evaluation import Evaluator
from allennlp.models.archival import Archive, load_archive
from allennlp.predictors import Predictor

from tests.conftest import train_tiny
from tests.processes import RunningProcess, allennlp

SPANISH_LAYOUT = {"num_columns": 3, "scheme": "BIO"}
LINES: list[dict[str, Any]] = [
    {"words": ["Peter", "Smith", "won", "the", "Paris", "Open", "."]},
    {"sentence": "María Muñoz visitó Málaga, ¿no?"},
    {"sentence": "王小明访问了北京。"},
]


def test_contents(tiny_run: SimpleNamespace) -> None:
    with tarfile.open(tiny_run.archive) as archive:
        names = {name.rsplit("/", 1)[-1] for name in archive.getnames()}
    assert {"tokenizer.json", "model.safetensors", "sentences.jsonl", "vectors.npy", "weights.th"} <= names


def test_predict_and_evaluate_with_nothing_but_the_archive(
    tiny_data: Path,
    tiny_word_encoder: str,
    running_process: type[RunningProcess],
    tmp_path: Path,
) -> None:
    """Without a hub, and without a trace of earlier runs."""
    made = tmp_path / "made"
    made.mkdir()
    train_tiny(made, tiny_data, tiny_word_encoder, updates_per_epoch=10)
    archive = load_archive(made / "run/model.tar.gz")
    expected = Predictor.from_archive(archive).predict_batch_json(LINES)
    expected_metrics = evaluate_here(archive, tiny_data / "conll2003/eng.testb")
    shutil.move(made / "run/model.tar.gz", tmp_path / "model.tar.gz")
    shutil.rmtree(made)
    shutil.copy(tiny_data / "conll2002/esp.testb", tmp_path / "esp.testb")
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES), "utf-8")
    command = {"folder": tmp_path, "environment": {"METANER_CACHE": str(tmp_path / "vectors")}}
    package = ("--include-package", "allennlp_metaner")
    predict = running_process(
        *(allennlp, "predict", "model.tar.gz", "lines.jsonl", "--output-file", "out.jsonl", "--silent"),
        *package,
        output=tmp_path / "predict.log",
        **command,
    )
    overrides = json.dumps(
        {f"validation_dataset_reader.base_reader.{key}": value for key, value in SPANISH_LAYOUT.items()}
    )
    evaluate = running_process(
        *(allennlp, "evaluate", "model.tar.gz", "esp.testb", "-o", overrides),
        *("--output-file", "metrics.json"),
        *package,
        output=tmp_path / "evaluate.log",
        **command,
    )
    for process in (predict, evaluate):
        assert process.finish() == 0, process.printed[-4000:]
    predicted = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [p["tags"] for p in predicted] == [e["tags"] for e in expected]
    for ours, theirs in zip(predicted, expected, strict=True):
        assert [n["words"] for n in ours["support"]] == [n["words"] for n in theirs["support"]]
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    # The Spanish file has the same sentences as the English one, in another layout.
    assert metrics == pytest.approx(expected_metrics, rel=1e-4)


def evaluate_here(archive: Archive, path: Path) -> dict[str, float]:
    from allennlp.data.data_loaders import MultiProcessDataLoader

    loader = MultiProcessDataLoader(archive.validation_dataset_reader, str(path), batch_size=32)
    loader.index_with(archive.model.vocab)
    return Evaluator.from_params(archive.config["evaluation"].duplicate())(archive.model, loader)
