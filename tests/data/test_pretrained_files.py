"""The copy of an encoder that travels in an archive: complete or not there, and independent of its source."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from allennlp.common import cached_transformers
from allennlp.common.checks import ConfigurationError
from transformers import AutoModel, AutoTokenizer, BertModel

from allennlp_metaner.data.pretrained_files import archived_name, is_archived, pretrained_path
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder


@pytest.fixture
def source(tiny_encoder: str, tmp_path: Path) -> Path:
    """An encoder that a test may take away. Its path is new, so nothing of it is cached."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "some encoder"))


def test_copy(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = Path(pretrained_path(str(source), str(run)))
    assert path.parent == run / "encoder"
    ours, theirs = (AutoModel.from_pretrained(str(p)).state_dict() for p in (path, source))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    text = "Maria visited qwerty ."
    assert AutoTokenizer.from_pretrained(str(path))(text) == AutoTokenizer.from_pretrained(str(source))(text)
    assert [entry.name for entry in (run / "encoder").iterdir()] == [path.name]  # no remains


def test_without_serialization_directory(source: Path) -> None:
    assert pretrained_path(str(source)) == str(source)
    assert pretrained_path("some-name") == "some-name"


def test_the_archived_copy_wins_although_the_source_has_vanished(source: Path, tmp_path: Path) -> None:
    path = pretrained_path(str(source), tmp_path / "run")
    shutil.rmtree(source)
    cached_transformers._clear_caches()
    # An archive is unpacked somewhere else.
    shutil.move(tmp_path / "run", tmp_path / "unpacked")
    assert pretrained_path(str(source), tmp_path / "unpacked") == path.replace("/run/", "/unpacked/")
    arguments = {"model_name": str(source), "serialization_dir": str(tmp_path / "unpacked")}
    WordTransformerIndexer(**arguments)
    assert WordTransformerEmbedder(**arguments).get_output_dim() == 16


def test_the_weights_are_the_pretrained_ones(source: Path, tmp_path: Path) -> None:
    """Not those of a model that another component trains meanwhile."""
    embedder = WordTransformerEmbedder(str(source))
    with torch.no_grad():
        for parameter in embedder.parameters():
            parameter.add_(1.0)
    copy = AutoModel.from_pretrained(pretrained_path(str(source), tmp_path / "run")).state_dict()
    for name, tensor in AutoModel.from_pretrained(str(source)).state_dict().items():
        assert torch.equal(copy[name], tensor)


def test_an_interrupted_copy_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def fail(self: BertModel, directory: str, **arguments: Any) -> None:
            # The configuration, by which a copy is found, is there before the weights.
            self.config.save_pretrained(directory)
            raise KeyboardInterrupt

        patch.setattr(BertModel, "save_pretrained", fail)
        with pytest.raises(KeyboardInterrupt):
            pretrained_path(str(source), tmp_path / "run")
    assert not list((tmp_path / "run/encoder").iterdir())
    assert (Path(pretrained_path(str(source), tmp_path / "run")) / "model.safetensors").exists()


def test_two_processes_at_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is late takes what the other has written."""
    target = tmp_path / "run/encoder" / archived_name(str(source))
    save = BertModel.save_pretrained

    def overtaken(self: BertModel, directory: str, **arguments: Any) -> None:
        save(self, directory, **arguments)
        shutil.copytree(source, target)
        (target / "first").touch()

    monkeypatch.setattr(BertModel, "save_pretrained", overtaken)
    assert pretrained_path(str(source), tmp_path / "run") == str(target)
    assert (target / "first").exists()
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_encoders_of_the_same_name_stay_apart() -> None:
    names = {archived_name(name) for name in ("a/encoder", "b/encoder", "encoder", "Encoder", "b/encoder/")}
    assert len(names) == 5
    assert all(name.lower().startswith("encoder-") and "/" not in name for name in names)
    assert archived_name("a/bert base.v1").startswith("bert-base-v1-")


@pytest.mark.parametrize("name", ["/nowhere/encoder", "no-such-encoder", "no such/encoder at all"])
def test_missing_encoder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        pretrained_path(name, tmp_path / "run")
    assert f"model_name={name!r}" in str(error.value)
    assert "METANER_ENCODER" in str(error.value)


def test_is_archived(tmp_path: Path) -> None:
    assert is_archived(str(tmp_path / "encoder/x"), str(tmp_path))
    assert not is_archived(str(tmp_path / "encoder/x"), str(tmp_path / "run"))
    assert not is_archived(str(tmp_path / "encoder/x"), None)
