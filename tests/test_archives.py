"""Archives: whole or not there, damage is noticed, and nothing in them is run."""

import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.commands import train
from allennlp.common.checks import ConfigurationError
from allennlp.models import load_archive as load_as_allennlp_does
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from allennlp_metaner import archives
from allennlp_metaner.archives import archive_model, load_archive, unpacked
from allennlp_metaner.commands.loading import load_task_reader
from allennlp_metaner.untrusted_config import ALLOWED_TYPES

INCLUDED = ["encoder", "pool"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where archives are unpacked. Whatever a test does, nothing is left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def unpacked_files(tiny_run: SimpleNamespace, tmp_path: Path) -> Path:
    """The files of an archive, for tests that change them and pack them again."""
    folder = tmp_path / "files"
    with tarfile.open(tiny_run.archive) as archive:
        archive.extractall(folder, filter="data")
    return folder


def pack(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return target


def with_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """As an attacker would: the checksums fit."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    checksums = json.loads((folder / archives.CHECKSUMS).read_text("utf-8"))
    checksums["config.json"] = archives.file_hash(folder / "config.json")
    (folder / archives.CHECKSUMS).write_text(json.dumps(checksums), "utf-8")
    return pack(folder, folder.parent / "changed.tar.gz")


def test_loading(tiny_run: SimpleNamespace, tiny_archive: Archive, temporary: Path) -> None:
    line = {"sentence": "Peter Smith won the Paris Open."}
    expected = Predictor.from_archive(tiny_archive).predict_json(line)
    assert Predictor.from_archive(load_archive(tiny_run.archive)).predict_json(line) == expected
    # A serialization directory, with overrides.
    archive = load_archive(tiny_run.run, overrides={"model.adaptation.enabled": False})
    assert not archive.model.adaptation.enabled


def test_checksums_of_all_files(tiny_run: SimpleNamespace, unpacked_files: Path) -> None:
    """The archive was made by `allennlp train`."""
    checksums = json.loads((unpacked_files / archives.CHECKSUMS).read_text("utf-8"))
    found = {
        path.relative_to(unpacked_files).as_posix() for path in unpacked_files.rglob("*") if path.is_file()
    }
    assert set(checksums) == found - {archives.CHECKSUMS}
    assert {"weights.th", "config.json", "vocabulary/labels.txt"} <= set(checksums)
    assert not (tiny_run.run / archives.CHECKSUMS).exists()
    assert train.archive_model is archive_model


def test_is_not_compressed_as_slowly_as_can_be(tiny_run: SimpleNamespace) -> None:
    """Byte 8 of a gzip file is 2 then (RFC 1952)."""
    with open(tiny_run.archive, "rb") as file:
        assert file.read(10)[8] != 2


@pytest.mark.parametrize("name", ["weights.th", "vocabulary/labels.txt", "encoder", "pool"])
@pytest.mark.parametrize("load", [load_archive, load_as_allennlp_does])
def test_damage_is_noticed(
    unpacked_files: Path, tmp_path: Path, temporary: Path, name: str, load: Callable[[str], Archive]
) -> None:
    """By AllenNLP's own function too, which unpacks with ours."""
    damaged = unpacked_files / name
    if damaged.is_dir():
        damaged = max((path for path in damaged.rglob("*") if path.is_file()), key=os.path.getsize)
    content = bytearray(damaged.read_bytes())
    content[-1 if name.endswith("txt") else len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"damaged.*{damaged.name}"):
        load(str(pack(unpacked_files, tmp_path / "damaged.tar.gz")))


def test_a_missing_file(unpacked_files: Path, tmp_path: Path, temporary: Path) -> None:
    (unpacked_files / "vocabulary/labels.txt").unlink()
    with pytest.raises(ConfigurationError, match=r"damaged\.tar\.gz.*vocabulary/labels\.txt"):
        load_archive(pack(unpacked_files, tmp_path / "damaged.tar.gz"))


def test_flipped_bits_and_short_files(tiny_run: SimpleNamespace, tmp_path: Path, temporary: Path) -> None:
    content = tiny_run.archive.read_bytes()
    path = tmp_path / "broken.tar.gz"
    for position in range(50, len(content) - 8, len(content) // 20):
        flipped = bytearray(content)
        flipped[position] ^= 16
        for broken in (bytes(flipped), content[:position]):
            path.write_bytes(broken)
            with pytest.raises(ConfigurationError, match=re.escape(str(path))), unpacked(path):
                pass


def name_a_function(config: dict[str, Any]) -> None:
    config["dataset_reader"] = {"type": "os.makedirs", "name": "made_by_the_archive"}


def hide_a_function(config: dict[str, Any]) -> None:
    """Loading builds nothing of it, but an evaluator would."""
    config["evaluation"]["batch_serializer"] = [{"type": "os.makedirs", "name": "made_by_the_archive"}]


def nest_an_archive(config: dict[str, Any]) -> None:
    config["model"] = {"type": "from_archive", "archive_file": "https://example.org/model.tar.gz"}


def trust_its_code(config: dict[str, Any]) -> None:
    config["model"]["text_field_embedder"]["token_embedders"]["tokens"]["transformer_kwargs"] = {
        "trust_remote_code": True
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (name_a_function, r"dataset_reader\.type = 'os\.makedirs'.*METANER_ALLOWED_TYPES"),
        (hide_a_function, r"evaluation\.batch_serializer\.0\.type = 'os\.makedirs'"),
        (nest_an_archive, r"model\.type = 'from_archive'"),
        (trust_its_code, r"trust_remote_code"),
    ],
)
@pytest.mark.parametrize("load", [load_archive, load_task_reader])
def test_code_in_the_config(
    unpacked_files: Path,
    monkeypatch: pytest.MonkeyPatch,
    temporary: Path,
    change: Callable[[dict[str, Any]], None],
    message: str,
    load: Callable[[str], Any],
) -> None:
    monkeypatch.chdir(unpacked_files.parent)
    path = with_config(unpacked_files, change)
    with pytest.raises(ConfigurationError, match=message):
        load(str(path))
    assert not Path("made_by_the_archive").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("load", [load_archive, load_task_reader])
def test_code_beside_the_encoder(
    unpacked_files: Path, temporary: Path, name: str, load: Callable[[str], Any]
) -> None:
    file = unpacked_files / "encoder" / name
    config = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**config, "auto_map": {"AutoModel": "code.Model"}}), "utf-8")
    with pytest.raises(ConfigurationError, match=f"auto_map in encoder/{name}"):
        load(str(unpacked_files))


@pytest.mark.parametrize("config", ["[1]", "null", "[" * 100_000])
def test_configs_that_are_none(unpacked_files: Path, temporary: Path, config: str) -> None:
    (unpacked_files / "config.json").write_text(config, "utf-8")
    with pytest.raises(ConfigurationError, match=r"its config\.json cannot be read as JSON"):
        load_archive(str(unpacked_files))


def test_code_in_a_string(unpacked_files: Path, temporary: Path) -> None:
    """Where a registrable object is expected, a string is a type, too."""

    def name_a_function(config: dict[str, Any]) -> None:
        config["model"]["text_field_embedder"]["token_embedders"]["tokens"] = "os.getcwd"

    with pytest.raises(ConfigurationError, match=r"the TokenEmbedder 'os\.getcwd'.*METANER_ALLOWED_TYPES"):
        load_archive(with_config(unpacked_files, name_a_function))


def test_allowed_types(unpacked_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "allennlp_metaner.evaluation.sentence_serializer.SentenceSerializer"
    path = with_config(
        unpacked_files, lambda config: config["evaluation"].update(batch_serializer={"type": name})
    )
    with pytest.raises(ConfigurationError, match="SentenceSerializer"):
        load_archive(path)
    # Overrides are the caller's.
    embedder = "model.text_field_embedder.token_embedders.tokens"
    own = {f"{embedder}.type": "allennlp_metaner.models.word_transformer_embedder.WordTransformerEmbedder"}
    assert load_archive(path, allowed_types=[name], overrides=own).model is not None
    monkeypatch.setenv(ALLOWED_TYPES, f"other.Type, {name}")
    assert load_archive(path).model is not None


@pytest.mark.parametrize("kind", ["path", "link"])
def test_members_outside(tiny_run: SimpleNamespace, tmp_path: Path, temporary: Path, kind: str) -> None:
    path = tmp_path / "evil.tar.gz"
    member = tarfile.TarInfo("../outside" if kind == "path" else "inside")
    if kind == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "../../outside"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tiny_run.run / "config.json", "config.json")
        archive.addfile(member)
    with pytest.raises(ConfigurationError, match=r"evil\.tar\.gz.*outside"):
        load_archive(path)
    assert not (temporary / "outside").exists()


@pytest.mark.parametrize("load", [load_archive, load_as_allennlp_does])
def test_nothing_is_left_of_failed_loads(
    tiny_run: SimpleNamespace,
    unpacked_files: Path,
    tmp_path: Path,
    temporary: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
    load: Callable[[str], Archive],
) -> None:
    (unpacked_files / "config.json").write_text("{", "utf-8")
    (unpacked_files / archives.CHECKSUMS).unlink()
    broken = pack(unpacked_files, tmp_path / "broken.tar.gz")
    with pytest.raises((ConfigurationError, RuntimeError)):
        load(str(broken))
    with full_disk(1 << 15), pytest.raises(ConfigurationError, match=r"cannot be unpacked.*TMPDIR"):
        load(str(tiny_run.archive))
    # The fixture looks at the folder.


def test_a_full_disk(
    tiny_run: SimpleNamespace,
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    target = tmp_path / "model.tar.gz"
    target.write_bytes(b"the old one")
    before = set(tiny_run.run.iterdir())
    with (
        full_disk(1 << 15),
        pytest.raises(ConfigurationError, match=r"model\.tar\.gz: cannot.*too large.*recover"),
    ):
        archive_model(tiny_run.run, archive_path=target, include_in_archive=INCLUDED)
    assert target.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [target]
    assert set(tiny_run.run.iterdir()) == before


def test_the_serialization_directory_need_not_be_writable(
    tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives are also made from others' runs. Linked folders are packed as what they are."""
    run = tmp_path / "run"
    run.mkdir()
    for path in tiny_run.run.iterdir():
        (run / path.name).symlink_to(path)
    made = archive_model(run, archive_path=tmp_path / "model.tar.gz", include_in_archive=INCLUDED)
    with unpacked(made) as folder, unpacked(tiny_run.archive) as expected:
        checksums = json.loads((folder / archives.CHECKSUMS).read_text("utf-8"))
        assert checksums == json.loads((expected / archives.CHECKSUMS).read_text("utf-8"))
    assert {path.name for path in run.iterdir()} == {path.name for path in tiny_run.run.iterdir()}


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"best\.th does not exist"):
        archive_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("no archive", "utf-8")
    for given in (path, tmp_path):
        with pytest.raises(ConfigurationError, match="is no archive"):
            load_archive(given)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_archive(tmp_path / "missing.tar.gz")
