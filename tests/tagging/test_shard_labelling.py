"""Labelling in shards: what is in them, streaming, going on, and that nothing else makes a difference."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.tagging import shard_labelling
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.shard_labelling import ShardLabelling
from tests.commands.conftest import Command, command  # noqa: F401  # a fixture
from tests.tagging.conftest import CapitalsBackend


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CapitalsBackend:
    """A quick backend in place of that of an exported tagger, `tmp_path/model`."""
    found = CapitalsBackend()

    def load(archive: str, threshold: float = 0, **_: object) -> NameTagger:
        return NameTagger(Engine(found, threshold))

    monkeypatch.setattr(shard_labelling.NameTagger, "load", load)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/model.safetensors").write_text("weights")
    return found


def sentence(number: int) -> str:
    return f"so Anna{number} Novak left {'now ' * (number % 7)}."


@pytest.fixture
def text(tmp_path: Path) -> list[str]:
    """A folder's files: texts, JSON lines and Parquet, of ten documents each, in the order of labelling."""
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path / "in"
    folder.mkdir()
    for first in (0, 5):
        paragraphs = [sentence(number) for number in range(first, first + 5)]
        (folder / f"a{first}.txt").write_text("\n\n".join(paragraphs) + "\n", "utf-8")
    objects = [{"id": number, "text": sentence(number)} for number in range(10, 20)]
    (folder / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in objects), "utf-8")
    table = pyarrow.table({"words": [sentence(n).split() for n in range(20, 30)], "id": range(20, 30)})
    parquet.write_table(table, folder / "c.parquet", row_group_size=3)
    return sorted(map(str, folder.iterdir()))


def labelling(tmp_path: Path, files: list[str], **settings: Any) -> ShardLabelling:
    return ShardLabelling(str(tmp_path / "model"), files, **{"documents_per_shard": 4, **settings})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def documents(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text("utf-8").split("\n")[:-1]
    ]


def test_every_document_once_in_order(tmp_path: Path, text: list[str]) -> None:
    manifest = labelling(tmp_path, text).write(tmp_path / "out")
    found = documents(tmp_path / "out")
    names = [entity["text"] for document in found for entity in document["entities"]]
    assert names == [f"Anna{number} Novak" for number in range(30)]
    assert found[0]["file"] == text[0] and [line["line"] for line in found[:6]] == [1, 3, 5, 7, 9, 1]
    assert [document["id"] for document in found[10:]] == list(range(10, 30))
    assert (manifest["documents"], manifest["entities"], manifest["errors"]) == (30, 30, 0)
    assert [shard["documents"] for shard in manifest["shards"]] == [4] * 7 + [2]
    assert manifest == json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))


@pytest.mark.parametrize("interrupted_at", [1, 3, 8])
def test_an_interrupted_run_goes_on(
    tmp_path: Path, text: list[str], backend: CapitalsBackend, interrupted_at: int
) -> None:
    labelling(tmp_path, text).write(tmp_path / "whole")

    def interrupt(shard: int) -> None:
        if shard + 1 == interrupted_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        labelling(tmp_path, text).write(tmp_path / "parts", on_shard=interrupt)
    assert not (tmp_path / "parts/manifest.json").exists()
    backend.batches.clear()
    labelling(tmp_path, text).write(tmp_path / "parts")
    assert sum(map(len, backend.batches)) == max(0, 30 - 4 * interrupted_at)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    # A finished job is not begun again.
    backend.batches.clear()
    labelling(tmp_path, text).write(tmp_path / "parts")
    assert not backend.batches


@pytest.mark.parametrize("change", ["settings", "text", "weights"])
def test_another_job(tmp_path: Path, text: list[str], change: str) -> None:
    labelling(tmp_path, text).write(tmp_path / "out")
    settings: dict[str, Any] = {}
    if change == "settings":
        settings["tagger"] = {"threshold": 0.9}
    elif change == "text":
        Path(text[0]).write_text("another text", "utf-8")
    else:
        (tmp_path / "model/model.safetensors").write_text("others")
    key = {"settings": "tagger", "text": "text", "weights": "model"}[change]
    with pytest.raises(ConfigurationError, match=f"shards of another job: {key} "):
        labelling(tmp_path, text, **settings).write(tmp_path / "out")
    labelling(tmp_path, text, **settings).write(tmp_path / "out", anew=True)
    labelling(tmp_path, text, **settings).write(tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_text_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: CapitalsBackend) -> None:
    """A shard is written before the text behind it is read, and ends after so many characters, too."""
    read = 0

    def lines(*arguments: object) -> Iterator[str]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield "Anna left. " * 100

    monkeypatch.setattr("allennlp_metaner.tagging.inputs._lines", lines)
    (tmp_path / "long.txt").touch()
    seen: list[int] = []
    work = labelling(tmp_path, [str(tmp_path / "long.txt")], documents_per_shard=100)
    manifest = work.write(tmp_path / "out", on_shard=lambda shard: seen.append(read))
    # 1,100 characters a line, a paragraph after 10,000, a shard after 20,000.
    assert seen[:3] == [20, 40, 60] and len(seen) == 5
    assert manifest["entities"] == 10_000
    assert [document["line"] for document in documents(tmp_path / "out")[:3]] == [1, 11, 21]


def test_what_cannot_be_read_ends_nothing(tmp_path: Path, text: list[str]) -> None:
    (tmp_path / "bad.txt").write_bytes("Eva left.\n\nÉlise vécut à Málaga.\n\nAda left.".encode("latin-1"))
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "boom.jsonl").write_text('{"text": "it went boom"}\n{"id": 3}\n{"text": "Eve"}')
    files = [str(tmp_path / name) for name in ("bad.txt", "bad.parquet", "boom.jsonl")]
    manifest = labelling(tmp_path, files, documents_per_shard=2).write(tmp_path / "out")
    found = documents(tmp_path / "out")
    assert ["error" in line for line in found] == [False, True, False, True, True, True, False]
    assert f"{files[0]}:3: not decodable" in found[1]["error"]
    assert "bad.parquet: is no Parquet file" in found[3]["error"]
    assert (manifest["errors"], manifest["entities"]) == (4, 3)
    with pytest.raises(ConfigurationError, match=r"boom.jsonl:2: .* has no text"):
        labelling(tmp_path, files[2:], fail_fast=True).write(tmp_path / "fast")


def test_command(
    command: Command,  # noqa: F811
    tmp_path: Path,
    text: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ["metaner-label", tmp_path / "model", tmp_path / "in", "--output-shards", tmp_path / "out"]
    command(*run, "--shard-size", 7)
    assert capsys.readouterr().out == f"30 documents with 30 names in 5 shards in {tmp_path / 'out'}\n"
    tagger: dict[str, Any] = {"threshold": 0.0, "language": "xx", "sentences": "split", "overrides": ""}
    tagger |= {"adapt": None, "runtime": None}
    labelling(tmp_path, text, documents_per_shard=7, tagger=tagger).write(tmp_path / "same")
    assert contents(tmp_path / "out") == contents(tmp_path / "same")
    with pytest.raises(ConfigurationError, match="shards of another job: documents_per_shard"):
        command(*run)
    command(*run, "--force")
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 1
    for arguments, message in (
        (["--format", "csv"], "shards are JSON lines"),
        (["--shard-size", 0], "documents_per_shard=0 must be positive"),
        (["--workers", 0], "num_workers=0 must be positive"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            command(*run[:-1], tmp_path / "other", *arguments)
    with pytest.raises(ConfigurationError, match="standard input cannot be labelled in shards"):
        command("metaner-label", tmp_path / "model", "-", "--output-shards", tmp_path / "other")
    with pytest.raises(ConfigurationError, match="--workers are for --output-shards"):
        command("metaner-label", tmp_path / "model", tmp_path / "in", "--workers", 2)
