"""`allennlp metaner-errors`: the counts agree with what `allennlp evaluate` measures, and clear errors."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.evaluation import Evaluator
from allennlp.models.archival import Archive

Command = Callable[..., None]


def metrics(archive: Archive, path: Path, adapt: bool) -> dict[str, float]:
    loader = MultiProcessDataLoader(archive.validation_dataset_reader, str(path), batch_size=32)
    loader.index_with(archive.model.vocab)
    evaluator = Evaluator.by_name("adapting")(adapt=adapt, print_scores=False)  # type: ignore[call-arg]
    return evaluator(archive.model, loader)


@pytest.mark.parametrize("adapt", [True, False])
def test_counts_agree_with_evaluation(
    command: Command,
    tiny_run: SimpleNamespace,
    tiny_archive: Archive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    adapt: bool,
) -> None:
    path = tiny_run.data / "conll2003/eng.testb"
    overrides = json.dumps({"model.adaptation.enabled": adapt})
    output = tmp_path / "new/errors"
    arguments = [tiny_run.archive, path, "--output-directory", output, "-o", overrides, "--reliability"]
    command("metaner-errors", *arguments)
    tables: dict[str, Any] = json.loads((output / "errors.json").read_text("utf-8"))
    total = tables["overall"]["all"]
    expected = metrics(tiny_archive, path, adapt)
    assert list(tables) == ["overall", "type", "text", "length"]
    assert total["correct"] / max(total["predicted"], 1) == pytest.approx(expected["precision-overall"])
    assert total["correct"] / total["gold"] == pytest.approx(expected["recall-overall"])
    # The pool has all people and places of the tiny corpus but the last two people.
    assert tables["text"]["seen"]["gold"] > 0 < tables["text"]["unseen"]["gold"]
    markdown = (output / "errors.md").read_text("utf-8")
    assert f"| all | {total['gold']} | {total['predicted']} | {total['correct']} |" in markdown
    table = (output / "reliability.md").read_text("utf-8")
    shown = capsys.readouterr().out
    assert shown.endswith(f"{markdown}\n{table}")
    reliable = json.loads((output / "reliability.json").read_text("utf-8"))
    assert reliable["gold"] == total["gold"]
    for name in ("predicted", "correct"):
        assert sum(found[name] for found in reliable["bins"]) == total[name]


def test_refused(command: Command, tiny_run: SimpleNamespace, tmp_path: Path) -> None:
    data = tiny_run.data / "conll2003/eng.testb"
    with pytest.raises(ConfigurationError, match=r"missing\.tar\.gz: cannot be read"):
        command("metaner-errors", tmp_path / "missing.tar.gz", data)
    with pytest.raises(ConfigurationError, match=r"eng\.testb is no archive"):
        command("metaner-errors", data, data)
    with pytest.raises(ConfigurationError, match=r"missing\.txt: cannot be read"):
        command("metaner-errors", tiny_run.archive, tmp_path / "missing.txt")
    plain = json.dumps({"validation_dataset_reader": {"type": "ner_columns"}})
    with pytest.raises(ConfigurationError, match=r"model\.tar\.gz: .*ColumnReader.*'pseudo_tasks'"):
        command("metaner-errors", tiny_run.archive, data, "-o", plain)
