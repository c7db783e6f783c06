"""The examples run, on a tiny model, and print what they say."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def archive(tiny_run: SimpleNamespace) -> str:
    return str(tiny_run.run)


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_find_names(archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    from allennlp_metaner import NameTagger

    text = "Anna visited Paris."
    expected = NameTagger.load(archive).predict(text)
    example("find_names").main(archive, text)
    lines = capsys.readouterr().out.splitlines()
    assert sum(not line.startswith("#") for line in lines) == len(expected.entities)
    assert sum(line.startswith("#") for line in lines) == sum(len(s.neighbors) for s in expected.sentences)


def test_compare_adaptation(archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    example("compare_adaptation").main(archive, "Anna visited Paris.", "Siemens.")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == ["Anna visited Paris.", "Siemens."]


def test_spacy_pipeline(archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    example("spacy_pipeline").main(archive, "Anna visited Paris.", "Siemens.")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_evaluate(archive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gold.tsv"
    file.write_text("Anna B-PER\nvisited O\nParis B-LOC\n\nSiemens B-ORG\n\n", encoding="utf-8")
    example("evaluate").main(archive, str(file))
    measured = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert 0 <= float(measured["f1-measure-overall"]) <= 1


def test_own_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from allennlp.common import Params

    config = Params.from_file(str(EXAMPLES / "own_corpus.jsonnet")).as_dict()
    assert config["train_data_path"] == "my/train.tsv" and config["validation_data_path"] == "my/dev.tsv"
    assert config["dataset_reader"]["label_map"] == {"PERSON": "PER", "DATE": "O"}


def test_all_are_listed() -> None:
    """The table of the folder's README knows every example."""
    text = (EXAMPLES / "README.md").read_text("utf-8")
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert files and all(f"]({file})" in text for file in files)
