import json
import os
from pathlib import Path

import pytest

from allennlp_metaner.atomic import write_json, write_whole


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", {"wörds": 1})
    assert (tmp_path / "record.json").read_text("utf-8") == '{\n  "wörds": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "record.json", {"bad": object()})
    assert json.loads((tmp_path / "record.json").read_text("utf-8")) == {"wörds": 1}
