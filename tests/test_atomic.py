import errno
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.atomic import check_writable, whole_directory, whole_file, write_json, write_whole


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigurationError, match=r"report\.md: cannot be written \(.*the disk is full\)"):
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


def test_a_full_disk(tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]) -> None:
    """Also where PyTorch speaks of an "unexpected pos"."""
    path = tmp_path / "new/weights.th"
    refused = pytest.raises(ConfigurationError, match=r"weights\.th: cannot.*too large.*Make room")
    with full_disk(1000), refused, whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(torch.zeros(1000), file)
    with full_disk(1000), refused, whole_directory(path) as folder:
        (folder / "file").write_bytes(bytes(2000))
    assert list(path.parent.iterdir()) == []


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no file"), whole_file(tmp_path / "file"):
        raise RuntimeError("it has to do with no file")
    for error in (
        OSError("a library's own error"),
        BrokenPipeError(errno.EPIPE, "the reader of a pipe is gone"),
        PermissionError(errno.EACCES, "another file is read", str(tmp_path / "other")),
    ):
        with pytest.raises(type(error)), whole_file(tmp_path / "file"):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_devices_stay_devices() -> None:
    """Root could replace them by files."""
    with pytest.raises(ConfigurationError, match=r"/dev/full: cannot be written.*No space left"):
        write_whole(check_writable(Path("/dev/full")), b"content")
    write_whole(check_writable(Path("/dev/null")), b"content")
    assert Path("/dev/full").is_char_device() and Path("/dev/null").is_char_device()


def test_directories(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with whole_directory(path) as folder:
            (folder / "file").write_text(content)
            assert content == "second" or not path.exists()
    assert (path / "file").read_text() == "first"
    with whole_directory(path, replace=True) as folder:
        (folder / "other").write_text("third")
    assert [found.name for found in path.iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [path]


def test_whether_a_file_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_writable(tmp_path / "new/folder/file") == tmp_path / "new/folder/file"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/below: cannot be written.*Give a file in"):
        check_writable(tmp_path / "file/below")
    with pytest.raises(ConfigurationError, match="is a folder"):
        check_writable(tmp_path)
