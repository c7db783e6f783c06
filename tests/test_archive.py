"""An archive carries everything: the real commands, where nothing it was made from is left."""

import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.evaluation import Evaluator
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from allennlp_metaner.archives import archive_model
from tests.processes import RunningProcess, allennlp

SPANISH_LAYOUT = {"num_columns": 3, "scheme": "BIO"}
LINES: list[dict[str, Any]] = [
    {"words": ["Peter", "Smith", "won", "the", "Paris", "Open", "."]},
    {"sentence": "María Muñoz visitó Málaga, ¿no?"},
    {"sentence": "王小明访问了北京。"},
]


def archive_alone(run: SimpleNamespace, path: Path) -> None:
    """The archive of `run` as if made in another place, of which nothing is left."""
    folder, gone = path.with_name("run"), path.with_name("gone")
    shutil.copytree(run.run, folder, ignore=shutil.ignore_patterns("log", "model.tar.gz"))
    config = (folder / "config.json").read_text("utf-8")
    for part in (run.encoder, run.data):
        assert str(part) in config
        config = config.replace(str(part), str(gone / part.name))
    (folder / "config.json").write_text(config, "utf-8")
    archive_model(folder, archive_path=path, include_in_archive=["encoder", "pool"])
    shutil.rmtree(folder)


def test_contents(tiny_run: SimpleNamespace) -> None:
    with tarfile.open(tiny_run.archive) as archive:
        names = {name.rsplit("/", 1)[-1] for name in archive.getnames()}
    assert {"tokenizer.json", "model.safetensors", "sentences.jsonl", "vectors.npy", "weights.th"} <= names


def test_predict_and_evaluate_with_nothing_but_the_archive(
    tiny_run: SimpleNamespace,
    tiny_archive: Archive,
    running_process: type[RunningProcess],
    tmp_path: Path,
) -> None:
    """Without a hub, and without a trace of earlier runs."""
    predictor = Predictor.from_archive(tiny_archive)
    expected = predictor.predict_batch_json(LINES)
    target = tiny_run.data / "conll2002/esp.testb"
    archive_alone(tiny_run, tmp_path / "model.tar.gz")
    shutil.copy(target, tmp_path / "esp.testb")
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
    assert metrics == pytest.approx(
        evaluate_here(tiny_archive, tiny_run.data / "conll2003/eng.testb"), rel=1e-4
    )


def evaluate_here(archive: Archive, path: Path) -> dict[str, float]:
    from allennlp.data.data_loaders import MultiProcessDataLoader

    loader = MultiProcessDataLoader(archive.validation_dataset_reader, str(path), batch_size=32)
    loader.index_with(archive.model.vocab)
    return Evaluator.from_params(archive.config["evaluation"].duplicate())(archive.model, loader)
