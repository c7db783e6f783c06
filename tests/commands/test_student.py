"""`allennlp metaner-student`: from text to an exported student, interrupted at any time."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.training import GradientDescentTrainer

from allennlp_metaner import NameTagger
from allennlp_metaner.commands import student
from tests.conftest import ROOT, tiny_sentences

Command = Callable[..., None]
Run = Callable[..., None]

CONFIG = ROOT / "training_configs/small/voting.jsonnet"
TRAINING = {
    "data_loader.batch_sampler.batch_size": 8,
    "trainer.num_epochs": 2,
    "trainer.callbacks": [],
    # Checkpoints of AllenNLP do not have the state of random numbers: dropout differs in what goes on.
    "model.dropout": 0.0,
    "model.text_field_embedder.token_embedders.tokens.transformer_kwargs": {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder of text: lines with several sentences each."""
    folder = tmp_path / "text/more"
    folder.mkdir(parents=True)
    sentences = [" ".join(words).replace(" .", ".") for words, _ in tiny_sentences()[40:80]]
    (folder / "a.txt").write_text(f"{' '.join(sentences[:20])}\n\n{' '.join(sentences[20:])}\n", "utf-8")
    (tmp_path / "text/b.txt").write_text("Anna visited Berlin.\n", "utf-8")
    return folder.parent


@pytest.fixture
def run(
    command: Command, tiny_run: SimpleNamespace, text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """The command with two teachers, one as an archive and one as a serialization directory."""
    monkeypatch.setenv("METANER_DATA", str(tiny_run.data))

    def run(
        folder: str, *options: object, teachers: tuple[object, ...] = (tiny_run.archive, tiny_run.run)
    ) -> None:
        where = ("--text", text, "-s", tmp_path / folder, "--config", CONFIG)
        command("metaner-student", *teachers, *where, "-o", json.dumps(TRAINING), "--adapt", "no", *options)

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "student/best.th", weights_only=True)  # type: ignore[no-any-return]


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_interrupted_anywhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The student is the same as that of a run in one go, and no stage is done twice."""
    run("whole", "--onnx")
    train_epoch = GradientDescentTrainer._train_epoch

    def killed_in_the_second_epoch(trainer: GradientDescentTrainer, epoch: int) -> dict[str, float]:
        return killed() if epoch == 1 else train_epoch(trainer, epoch)  # type: ignore[func-returns-value]

    folder = tmp_path / "interrupted"
    # Where it is killed, and which stages a later run must not begin again.
    for place, name, replacement in [
        (student, "train_or_resume", killed),
        (GradientDescentTrainer, "_train_epoch", killed_in_the_second_epoch),
        (student, "write_json", killed),
        (student, "export", killed),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, replacement)
            if name != "train_or_resume":
                patch.setattr(student, "pseudo_label", lambda *_: pytest.fail("labelled twice"))
            if name == "export":
                # The run before was killed when all but its record was there.
                patch.setattr(
                    GradientDescentTrainer, "batch_outputs", lambda *_: pytest.fail("trained twice")
                )
            with pytest.raises(KeyboardInterrupt):
                run("interrupted", "--onnx")
        assert not (folder / "exported").exists()
    with monkeypatch.context() as patch:
        patch.setattr(student, "train_or_resume", lambda *_: pytest.fail("trained twice"))
        run("interrupted", "--onnx")
    ours, theirs = weights(folder), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    capsys.readouterr()
    run("interrupted", "--onnx")
    assert capsys.readouterr().out.count("finished before") == 3


def test_result(run: Run, tiny_run: SimpleNamespace, text: Path, tmp_path: Path) -> None:
    run("out", "--export", "--language", "en")
    folder = tmp_path / "out"
    manifest = json.loads((folder / "pseudo_labels/manifest.json").read_text("utf-8"))
    # Lines are split into sentences, and equal ones count once.
    sentences = {" ".join(words) for words, _ in tiny_sentences()[40:80]} | {"Anna visited Berlin ."}
    assert manifest["num_sentences"] == len(sentences)
    assert not any(teacher["adapts"] for teacher in manifest["teachers"])
    # It started from the teacher, whose encoder and weights it has, and learned.
    teacher, ours = torch.load(tiny_run.run / "best.th", weights_only=True), weights(folder)
    assert teacher.keys() == ours.keys()
    changed = [key for key in ours if not torch.equal(ours[key], teacher[key])]
    assert changed and "text_field_embedder.token_embedder_tokens" in changed[0]
    # The archive labels, and so does the export, which knows where it comes from.
    words = [words for words, _ in tiny_sentences()[:20]]
    plain = NameTagger.load(folder / "student/model.tar.gz").predict(words)
    exported = NameTagger.load(folder / "exported").predict(words)
    assert [e.text for d in plain for e in d.entities] == [e.text for d in exported for e in d.entities]
    assert sum(len(document.entities) for document in plain) > 10
    card = (folder / "exported/README.md").read_text("utf-8")
    assert f"| sentences without labels | `{len(sentences)}` |" in card and "| teachers | `2` |" in card
    assert not (folder / "exported/model.onnx").exists()
    # Asked for later, the ONNX file is added; nothing else is done again.
    run("out", "--onnx", "--language", "en")
    assert (folder / "exported/model.onnx").exists()
    with pytest.raises(ConfigurationError, match="was begun with other language, see"):
        run("out", "--export")
    (text / "b.txt").write_text("Another text.\n", "utf-8")
    with pytest.raises(ConfigurationError, match="was begun with other text, see"):
        run("out", "--export", "--language", "en")


def test_weights_by_neighbors_are_computed_if_the_config_needs_them(run: Run, tmp_path: Path) -> None:
    run("out", "--split", "lines", "-o", json.dumps({**TRAINING, "dataset_reader.word_weights": "vote+knn"}))
    manifest = json.loads((tmp_path / "out/pseudo_labels/manifest.json").read_text("utf-8"))
    assert manifest["num_sentences"] == 3
    assert manifest["mean_neighbor_weights"]
    assert (tmp_path / "out/student/model.tar.gz").is_file()


def test_refused_before_anything_is_computed(
    run: Run, tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "pseudo_label", lambda *_: pytest.fail("labelled"))
    with pytest.raises(ConfigurationError, match=r"missing\.jsonnet: there is no such file"):
        run("out", "--config", "missing.jsonnet")
    with pytest.raises(ConfigurationError, match="a student's is of type 'pseudo_labels'"):
        run("out", "--config", ROOT / "training_configs/base_en.jsonnet", "-o", "")
    with pytest.raises(ConfigurationError, match="missing: there is no such file or folder"):
        run("out", "--text", tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="standard input cannot be read again"):
        run("out", "--text", "-")
    with pytest.raises(ConfigurationError, match="is no archive"):
        run("out", teachers=(tiny_run.data,))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
