"""AllenNLP's own commands on a full disk: one message that names the file, and no half of it."""

import argparse
import errno
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.commands import train
from allennlp.commands.evaluate import Evaluate
from allennlp.commands.predict import Predict
from allennlp.commands.subcommand import Subcommand
from allennlp.common import Params, util
from allennlp.common.checks import ConfigurationError
from allennlp.evaluation.serializers import SimpleSerializer
from allennlp.models import archival
from allennlp.models.archival import Archive

from allennlp_metaner.whole_outputs import dump_metrics

FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def run(
    tiny_run: SimpleNamespace, tiny_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """`allennlp evaluate` or `predict` with the loaded archive."""
    for module in ("evaluate", "predict"):
        monkeypatch.setattr(f"allennlp.commands.{module}.load_archive", lambda *_, **__: tiny_archive)

    def run(subcommand: Subcommand, data: Path, *arguments: object) -> None:
        parser = argparse.ArgumentParser()
        subcommand.add_subparser(parser.add_subparsers())
        parsed = parser.parse_args([subcommand.name, str(tiny_run.archive), str(data), *map(str, arguments)])
        parsed.func(parsed)

    yield run
    # What was counted by evaluations that broke off.
    tiny_archive.model.get_metrics(reset=True)


def test_evaluate(
    run: Callable[..., None], tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_run.data / "conll2003/eng.testb"
    metrics, predictions = tmp_path / "new/metrics.json", tmp_path / "new/predictions.jsonl"
    outputs = ("--output-file", metrics, "--predictions-output-file", predictions, "--batch-size", 4)
    run(Evaluate(), data, *outputs)
    whole = predictions.read_bytes()
    assert json.loads(metrics.read_text("utf-8"))["f1-measure-overall"] > 0
    assert len(whole.splitlines()) == 3
    for option in outputs[:4:2]:
        with pytest.raises(ConfigurationError, match=r"/dev/full: cannot be written.*No space.*Make room"):
            run(Evaluate(), data, option, "/dev/full")

    def fill_the_disk(batch: dict[str, Any], *_: object, **__: object) -> str:
        if len(batch["metadata"]) < 4:
            raise OSError(errno.ENOSPC, "the disk is full")
        return "{}"

    monkeypatch.setattr(
        SimpleSerializer, "__call__", lambda _, *args, **kwargs: fill_the_disk(*args, **kwargs)
    )
    with pytest.raises(ConfigurationError, match=r"predictions\.jsonl: cannot be written"):
        run(Evaluate(), data, *outputs)
    assert predictions.read_bytes() == whole
    assert sorted(path.name for path in metrics.parent.iterdir()) == ["metrics.json", "predictions.jsonl"]


def test_evaluate_finds_out_before_the_work(
    run: Callable[..., None],
    tiny_run: SimpleNamespace,
    tiny_archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tiny_archive.model, "forward", None)
    with pytest.raises(ConfigurationError, match=r"file/metrics\.json: cannot be written.*Give a file in"):
        run(
            Evaluate(), tiny_run.data / "conll2003/eng.testb", "--output-file", tmp_path / "file/metrics.json"
        )


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_text(20 * '{"sentence": "Anna Smith visited Paris."}\n', "utf-8")
    return path


def test_predict(run: Callable[..., None], lines: Path, tmp_path: Path, full_disk: FullDisk) -> None:
    output = tmp_path / "new/output.jsonl"
    arguments = (lines, "--silent", "--output-file", output, "--batch-size", 8)
    with (
        full_disk(9000),
        pytest.raises(ConfigurationError, match=r"output\.jsonl: cannot be written.*too large"),
    ):
        run(Predict(), *arguments)
    assert list(output.parent.iterdir()) == []
    run(Predict(), *arguments)
    assert len(output.read_text("utf-8").splitlines()) == 20
    with pytest.raises(ConfigurationError, match=r"/dev/full: cannot be written.*No space"):
        run(Predict(), lines, "--silent", "--output-file", "/dev/full")


def test_predict_finds_out_before_the_work(run: Callable[..., None], lines: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lines\.jsonl/output: cannot be written"):
        run(Predict(), lines, "--output-file", lines / "output")


def test_predict_names_an_input_that_is_not_there(run: Callable[..., None], tmp_path: Path) -> None:
    """It is not the output that is wrong."""
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        run(Predict(), tmp_path / "missing.jsonl", "--output-file", tmp_path / "output.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_train(
    tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_disk: FullDisk
) -> None:
    config = tiny_run.run / archival.CONFIG_NAME
    folder = tmp_path / "run"
    # Training would write its log, too, and logging shows errors of its own.
    monkeypatch.setattr(train.common_logging, "prepare_global_logging", lambda *_: _NO_LOGGING)
    with full_disk(100), pytest.raises(ConfigurationError, match=r"run: cannot be written.*--recover"):
        train.train_model(Params.from_file(str(config)), str(folder))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/run: cannot be written"):
        train.train_model(Params.from_file(str(config)), str(tmp_path / "file/run"))


class _NoLogging:
    def cleanup(self) -> None:
        """Nothing was prepared."""


_NO_LOGGING = _NoLogging()


def test_metrics_of_a_run_are_whole(tmp_path: Path, full_disk: FullDisk) -> None:
    path = tmp_path / "metrics.json"
    # What `allennlp train` and its trainers call.
    assert util.dump_metrics is dump_metrics
    util.dump_metrics(str(path), {"f1": 0.5})
    with full_disk(4), pytest.raises(ConfigurationError, match=r"metrics\.json: cannot be written"):
        util.dump_metrics(str(path), {"f1": 0.7})
    assert json.loads(path.read_text("utf-8")) == {"f1": 0.5}
