"""`allennlp metaner-cases`: the page tells what both models and `allennlp evaluate` say, and clear errors."""

import errno
import json
import os
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.evaluation import Evaluator
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from allennlp_metaner.archives import load_archive
from allennlp_metaner.commands import cases
from allennlp_metaner.commands.cases import label_with_both
from allennlp_metaner.commands.loading import merged
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.data.tag_schemes import spans

Command = Callable[..., None]
PLAIN = json.dumps({"model.adaptation.enabled": False})
PLAIN_READER = {"validation_dataset_reader": {"type": "ner_columns", "num_columns": 4, "scheme": "IOB1"}}
HOSTILE = "<script>alert('&')</script> NN I-NP O\nPeter NN I-NP I-PER\nSmith NN I-NP I-PER\nwon NN I-NP O\n\n"


@pytest.fixture
def data_file(tiny_run: SimpleNamespace, tmp_path: Path) -> Path:
    """More sentences than a batch has, one of them hostile."""
    path = tmp_path / "data.txt"
    tiny = (tiny_run.data / "conll2003/eng.train").read_text("utf-8")
    path.write_text(HOSTILE + tiny, "utf-8")
    return path


@pytest.fixture(scope="module")
def plain_archive(tiny_run: SimpleNamespace) -> Archive:
    return load_archive(str(tiny_run.run), overrides=PLAIN)


def f1(archive: Archive, path: Path, adapt: bool) -> float:
    loader = MultiProcessDataLoader(archive.validation_dataset_reader, str(path), batch_size=32)
    loader.index_with(archive.model.vocab)
    evaluator = Evaluator.by_name("adapting")(adapt=adapt)  # type: ignore[call-arg]
    return evaluator(archive.model, loader)["f1-measure-overall"]


def test_page(
    command: Command,
    tiny_run: SimpleNamespace,
    tiny_archive: Archive,
    data_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labelled: list[Any] = []

    def label_once(*arguments: Any) -> list[Any]:
        """Both pages are of the same sentences, and labelling these takes longest."""
        if not labelled:
            labelled.extend(label_with_both(*arguments))
        return labelled

    monkeypatch.setattr(cases, "label_with_both", label_once)
    output = tmp_path / "new/page.html"
    arguments = [tiny_run.run, tiny_run.archive, data_file, "-o", output, "--base-overrides", PLAIN]
    command("metaner-cases", *arguments)
    html = output.read_text("utf-8")
    found = re.search(r"<p>(\d+) of 41 sentences differ: .*\.</p>", html)
    assert found and int(found[1]) > 2
    assert capsys.readouterr().out == f"{output}: {found[1]} of 41 sentences differ\n"
    assert html.count("<article") == int(found[1]) == html.count("Adapted to, with similarity")
    scores = re.findall(r'<td>(yes|no)</td><td class="number">([\d.]+)</td>', html)
    assert scores == [
        ("no", f"{100 * f1(tiny_archive, data_file, False):.2f}"),
        ("yes", f"{100 * f1(tiny_archive, data_file, True):.2f}"),
    ]
    assert str(tiny_run.run) in html and str(tiny_run.archive) in html and PLAIN in unescape(html)
    assert "<script" not in html
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]

    command("metaner-cases", *arguments, "--max-cases", 2)
    html = output.read_text("utf-8")
    assert html.count("<article") == 2
    assert f"<p>{found[1]} of 41 sentences differ" in html and "Shown are the first 2 of them." in html


def test_labels_are_those_of_each_model(
    plain_archive: Archive, tiny_archive: Archive, data_file: Path
) -> None:
    found = list(label_with_both(plain_archive, tiny_archive, str(data_file)))
    reader = tiny_archive.validation_dataset_reader
    sentences = [words_and_tags(instance) for instance in reader.read(str(data_file))]
    assert [(case.words, case.gold) for case in found] == sentences
    assert [case.number for case in found] == list(range(1, 42))
    lines = [{"words": words} for words, _ in sentences]
    expected: list[dict[str, Any]] = Predictor.from_archive(tiny_archive).predict_batch_json(lines)
    assert [spans(case.adapted) for case in found] == [spans(output["tags"]) for output in expected]
    assert [[s._asdict()["words"] for s in case.support] for case in found] == [
        [s["words"] for s in output["support"]] for output in expected
    ]
    assert all(0 < s.similarity <= 1 + 1e-6 for case in found for s in case.support)
    expected = Predictor.from_archive(plain_archive).predict_batch_json(lines)
    assert [spans(case.base) for case in found] == [spans(output["tags"]) for output in expected]
    # Exchanged: what is adapted is now the base, and nothing is retrieved for the other.
    exchanged = list(label_with_both(tiny_archive, plain_archive, str(data_file)))
    assert [(case.base, case.adapted) for case in exchanged] == [(case.adapted, case.base) for case in found]
    assert not any(case.support for case in exchanged)


def test_the_file_is_read_once_and_without_tags_too(
    plain_archive: Archive, tiny_archive: Archive, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = tiny_archive.validation_dataset_reader
    lines = [(words, None) for words, _ in map(words_and_tags, reader.read(str(data_file)))]
    monkeypatch.setattr(reader, "read", lambda path: reader.tasks(lines))
    monkeypatch.setattr(plain_archive.validation_dataset_reader, "read", None)
    found = list(label_with_both(plain_archive, tiny_archive, "anything"))
    assert [case.gold for case in found] == [None] * 41
    assert {case.kind for case in found} == {None, "unknown"}


def test_overrides_of_both_and_of_one(tmp_path: Path) -> None:
    from allennlp.common import Params

    (tmp_path / "config.json").write_text('{"a": 0, "b": 0, "c": 0}')
    for given, expected in [
        (("", ""), [0, 0, 0]),
        (('{"a": 1, "b": 1} // both', "{'b': 2}"), [1, 2, 0]),
        (("", "{'c': 3}"), [0, 0, 3]),
        (("{a: 1} + {b: 1}", " "), [1, 1, 0]),
    ]:
        params = Params.from_file(str(tmp_path / "config.json"), merged(*given))
        assert [params[key] for key in "abc"] == expected


def broken(*_: object) -> None:
    raise OSError(errno.EIO, "out of order")


def test_an_old_page_stays_if_there_is_no_new_one(
    command: Command, tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    arguments = ["metaner-cases", tiny_run.run, tiny_run.run, tmp_path / "missing.txt", "-o", page]
    with pytest.raises(ConfigurationError, match=r"missing\.txt: cannot be read"):
        command(*arguments)
    arguments[3] = tiny_run.data / "conll2003/eng.testb"
    with monkeypatch.context() as patch, pytest.raises(ConfigurationError, match="out of order"):
        patch.setattr(os, "replace", broken)
        command(*arguments)
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]
    # What has no form in UTF-8, such as half of a character in the name of a file, is replaced.
    monkeypatch.setattr(cases, "render", lambda *_: "new \ud800")
    command(*arguments)
    assert page.read_text("utf-8") == "new \ufffd"


def test_refused(command: Command, tiny_run: SimpleNamespace, tmp_path: Path) -> None:
    data, archive = tiny_run.data / "conll2003/eng.testb", tiny_run.archive
    page = ["-o", tmp_path / "page.html"]
    with pytest.raises(ConfigurationError, match=r"missing\.tar\.gz: cannot be read"):
        command("metaner-cases", tmp_path / "missing.tar.gz", archive, data, *page)
    with pytest.raises(ConfigurationError, match=r"eng\.testb is no archive"):
        command("metaner-cases", archive, data, data, *page)
    with pytest.raises(ConfigurationError, match="--max-cases=0: give a number above 0"):
        command("metaner-cases", archive, archive, data, *page, "--max-cases", 0)
    for side in ("base", "adapted"):
        with pytest.raises(ConfigurationError, match=r"model\.tar\.gz: .*ColumnReader.*'pseudo_tasks'"):
            command(
                *("metaner-cases", archive, archive, data, *page),
                *(f"--{side}-overrides", json.dumps(PLAIN_READER)),
            )
    assert list(tmp_path.iterdir()) == []


def test_neither_adapts(command: Command, tiny_run: SimpleNamespace, tmp_path: Path) -> None:
    """As of low resource: then nothing needs to be retrieved."""
    indexer = {"type": "word_transformer", "model_name": str(tiny_run.encoder)}
    reader = {**PLAIN_READER["validation_dataset_reader"], "token_indexers": {"tokens": indexer}}
    overrides = json.dumps({"validation_dataset_reader": reader, "model.adaptation.enabled": False})
    data, archive = tiny_run.data / "conll2003/eng.testb", tiny_run.archive
    command("metaner-cases", archive, archive, data, "-o", tmp_path / "page.html", "--overrides", overrides)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert re.search(r"<p>0 of [1-9]\d* sentences differ", page)


def test_pages_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    # Found before the archives are even looked for.
    arguments = ["metaner-cases", tmp_path / "no.tar.gz", tmp_path / "no.tar.gz", tmp_path / "no.txt", "-o"]
    with pytest.raises(ConfigurationError, match=r"ends in \.html; overrides are given by --overrides"):
        command(*arguments, "import 'training_configs/targets/es.jsonnet'")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/page\.html: cannot be written"):
        command(*arguments, tmp_path / "file/page.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigurationError, match=r"folder\.html: is a folder"):
        command(*arguments, tmp_path / "folder.html")
