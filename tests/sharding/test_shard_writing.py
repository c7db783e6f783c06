"""Shards in this process: only those that are missing, as they are read."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.sharding import shard_writing
from allennlp_metaner.sharding.shard_folder import ShardFolder
from allennlp_metaner.sharding.shard_writing import write_shards


class Work:
    """Ten shards, of which it remembers what was read, loaded and processed."""

    def __init__(self, fail_at: int = -1) -> None:
        self.log: list[str] = []
        self.fail_at = fail_at

    def read(self) -> Iterator[list[int]]:
        for number in range(10):
            self.log.append(f"read {number}")
            yield [number] * number

    def load(self) -> shard_writing.Process:
        self.log.append("load")
        return self.process

    def process(self, items: list[int]) -> bytes:
        if len(items) == self.fail_at:
            raise KeyboardInterrupt
        self.log.append(f"process {len(items)}")
        return str(sum(items)).encode()


def contents(folder: ShardFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_an_interrupted_call_goes_on(tmp_path: Path) -> None:
    whole, parts = ShardFolder(tmp_path / "whole", "txt"), ShardFolder(tmp_path / "parts", "txt")
    work = Work()
    assert list(write_shards(whole, work.read, work.load)) == list(range(10))
    # One by one: nothing is read before it is needed.
    assert work.log[:5] == ["read 0", "load", "process 0", "read 1", "process 1"]
    for fail_at in (3, 7):
        failing = Work(fail_at)
        with pytest.raises(KeyboardInterrupt):
            list(write_shards(parts, failing.read, failing.load))
    parts.file(0).unlink()
    last = Work()
    assert list(write_shards(parts, last.read, last.load)) == [0, 7, 8, 9]
    processed = [entry for entry in last.log if entry.startswith("process")]
    assert processed == ["process 0", "process 7", "process 8", "process 9"]
    assert contents(parts) == contents(whole)
    # Nothing is loaded where nothing is left to do.
    idle = Work()
    assert list(write_shards(parts, idle.read, idle.load)) == [] and "load" not in idle.log


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    with pytest.raises(ConfigurationError, match="num_workers=0 must be positive"):
        write_shards(ShardFolder(tmp_path, "txt"), work.read, work.load, num_workers=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"allennlp-metaner\[ray\]"):
        list(write_shards(ShardFolder(tmp_path, "txt"), work.read, work.load, num_workers=1))
