"""A folder of shards: one job, one writer, and what killed processes leave."""

from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.sharding.shard_folder import ShardFolder


def test_begun_finished_and_of_another_job(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path / "new/shards", "txt")
    with folder.job({"model": "a", "sizes": (1, 2)}):
        folder.write(1, b"b")
        assert folder.done() == {1} and folder.manifest is None
        with pytest.raises(RuntimeError, match=r"shards are missing: \[0\]"):
            folder.finish({})
    (folder.path / ".000000.txt.x.tmp").mkdir()
    with folder.job({"model": "a", "sizes": [1, 2]}):
        folder.write(0, b"a")
        folder.finish({"total": 2})
    assert folder.manifest == {"total": 2}
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == [".lock", "000000.txt", "000001.txt", "job.json", "manifest.json"]
    with (
        pytest.raises(ConfigurationError, match=r"another job: model \(a, now b\)"),
        folder.job({"model": "b"}),
    ):
        pass
    with folder.job({"model": "b"}, anew=True):
        assert folder.done() == frozenset() and folder.manifest is None


def test_one_writer(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, "txt")
    with (
        folder.job({}),
        pytest.raises(ConfigurationError, match="another process is writing"),
        folder.job({}),
    ):
        pass
    with pytest.raises(KeyError), folder.job({}):
        raise KeyError
    with folder.job({}):
        pass


def test_files_of_others_are_not_taken_for_shards(tmp_path: Path) -> None:
    (tmp_path / "000000.txt").write_text("mine")
    (tmp_path / "2024-notes.txt").write_text("mine")
    folder = ShardFolder(tmp_path, "txt")
    assert folder.done() == {0}
    with pytest.raises(ConfigurationError, match=r"no job\.json"), folder.job({}):
        pass
    assert (tmp_path / "000000.txt").read_text() == "mine"
