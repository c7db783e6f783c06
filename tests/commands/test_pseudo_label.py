"""`allennlp metaner-pseudo-label`: any text, any number of teachers, interrupted at any time."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.predictors import Predictor

from allennlp_metaner.commands.pseudo_label import pseudo_label
from allennlp_metaner.unlabelled import pseudo_labels, teacher
from allennlp_metaner.unlabelled.pseudo_labels import PseudoLabelled, read_pseudo_labels

Command = Callable[..., None]


def content(folder: Path) -> list[PseudoLabelled]:
    return list(read_pseudo_labels(folder))


def assert_same(ours: list[PseudoLabelled], theirs: list[PseudoLabelled]) -> None:
    assert [s.words for s in ours] == [s.words for s in theirs]
    for own, other in zip(ours, theirs, strict=True):
        for one, two in zip(own[1:4], other[1:4], strict=True):
            assert torch.equal(one, two)  # type: ignore[arg-type]


@pytest.mark.parametrize("adapt", ["yes", "no"])
def test_says_what_the_predictor_says(
    command: Command, tiny_run: SimpleNamespace, tiny_archive: Any, tmp_path: Path, adapt: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Maria Novak visited Paris on Monday.\n\nIt rained.\nIt rained.\n", "utf-8")
    folder = tmp_path / "labels"
    command(
        "metaner-pseudo-label",
        tiny_run.archive,
        "--text",
        text,
        "--output-directory",
        folder,
        "--adapt",
        adapt,
    )
    predictor = Predictor.from_archive(tiny_archive, "adapting", extra_args={"adapt": adapt == "yes"})
    sentences = content(folder)
    assert len(sentences) == 2
    for sentence in sentences:
        output = predictor.predict_json({"words": sentence.words})
        best = sentence.probabilities.argmax(dim=1).tolist()
        labels = json.loads((folder / "manifest.json").read_text("utf-8"))["labels"]
        assert [labels[index] for index in best] == output["tags"]


def test_interrupted(tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two shards; nothing is labelled twice."""
    monkeypatch.setattr(teacher, "SENTENCES_PER_SHARD", 4)
    monkeypatch.setattr(pseudo_labels, "SENTENCES_PER_SHARD", 4)
    files, archives = [str(tiny_run.data / "conll2003/eng.testb")], [str(tiny_run.archive)] * 2
    pseudo_label(archives, files, tmp_path / "whole", adapt=False)
    whole = teacher.write_whole
    written: list[Path] = []

    def killed(path: Path, shard: bytes) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        whole(path, shard)

    for _ in range(4):
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(teacher, "write_whole", killed)
            with pytest.raises(KeyboardInterrupt):
                pseudo_label(archives, files, tmp_path / "parts", adapt=False)
        with pytest.raises(ConfigurationError, match="not complete"):
            content(tmp_path / "parts")
    pseudo_label(archives, files, tmp_path / "parts", adapt=False)
    assert_same(content(tmp_path / "parts"), content(tmp_path / "whole"))


def test_another_text(tiny_run: SimpleNamespace, tiny_pseudo_labels: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Another one.\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"was begun with other text.*--output-directory"):
        pseudo_label([str(tiny_run.archive)], [str(text)], tiny_pseudo_labels, adapt=False)
    with pytest.raises(ConfigurationError, match="was begun with other teachers"):
        files = [str(tiny_run.data / "conll2003/eng.testb")]
        pseudo_label([str(tiny_run.archive)], files, tiny_pseudo_labels, adapt=True)


def test_no_text(tiny_run: SimpleNamespace, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n \n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"text\.txt: no sentence found"):
        pseudo_label([str(tiny_run.archive)], [str(text)], tmp_path / "labels")
