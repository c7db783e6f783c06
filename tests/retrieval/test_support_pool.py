import os
from pathlib import Path

import numpy as np
import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.retrieval.support_pool import SupportPool

SENTENCES = [["Maria", "won"], ["\u2028\u5317\u4eac", "\ud800"], ["Maria", "won"], [], ["won", "Maria"]]
TAGS = [["B-PER", "O"], ["B-LOC", "O"], ["B-PER", "O"], [], ["O", "B-PER"]]


@pytest.fixture
def pool() -> SupportPool:
    return SupportPool(SENTENCES, TAGS, np.eye(5, 3, dtype=np.float32), "print")


def test_save_and_load(pool: SupportPool, tmp_path: Path) -> None:
    directory = tmp_path / "run" / "pool"
    assert not SupportPool.exists(directory)
    pool.save(directory)
    assert SupportPool.exists(str(directory))

    loaded = SupportPool.load(str(directory))
    for file in directory.iterdir():
        file.unlink()

    assert (loaded.sentences, loaded.tags, loaded.fingerprint) == (SENTENCES, TAGS, "print")
    np.testing.assert_array_equal(loaded.vectors, pool.vectors)
    assert loaded.vectors.dtype == np.float32
    assert len(loaded) == 5


def test_saving_again_replaces(pool: SupportPool, tmp_path: Path) -> None:
    pool.save(tmp_path / "pool")
    SupportPool([["a"]], [["O"]], np.ones((1, 1), dtype=np.float32), "other").save(tmp_path / "pool")
    assert SupportPool.load(tmp_path / "pool").fingerprint == "other"
    assert os.listdir(tmp_path) == ["pool"]


def test_interrupted_save_leaves_the_old_pool(
    pool: SupportPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    for already_there in (False, True):
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(np, "save", interrupt)
            pool.save(tmp_path / "pool")
        assert SupportPool.exists(tmp_path / "pool") == already_there
        pool.save(tmp_path / "pool")
    assert SupportPool.load(tmp_path / "pool").sentences == SENTENCES


@pytest.mark.parametrize("name", ["sentences.jsonl", "vectors.npy", "metadata.json"])
@pytest.mark.parametrize("change", ["remove", "truncate", "flip"])
def test_damage_is_reported(pool: SupportPool, tmp_path: Path, name: str, change: str) -> None:
    pool.save(tmp_path / "pool")
    file = tmp_path / "pool" / name
    content = file.read_bytes()
    file.unlink()
    if change != "remove":
        file.write_bytes(content[:-3] if change == "truncate" else b"\x01" + content[1:])
    with pytest.raises(ConfigurationError, match="missing, incomplete or damaged"):
        SupportPool.load(tmp_path / "pool")


def test_positions_of_equal_texts(pool: SupportPool) -> None:
    assert pool.positions_of(["Maria", "won"]) == [0, 2]
    assert pool.positions_of(("won", "Maria")) == [4]
    assert pool.positions_of(["Maria won"]) == []
    assert pool.positions_of([]) == [3]


def test_parts_that_do_not_fit() -> None:
    vectors = np.eye(1, dtype=np.float32)
    with pytest.raises(ConfigurationError, match="2 vectors"):
        SupportPool([["a"]], [["O"]], np.eye(2, dtype=np.float32), "")
    with pytest.raises(ConfigurationError, match="0 tag sequences"):
        SupportPool([["a"]], [], vectors, "")
    with pytest.raises(ConfigurationError, match="1 tags for the 2 words of 'a b'"):
        SupportPool([["a", "b"]], [["O"]], vectors, "")
