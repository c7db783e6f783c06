import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from allennlp_metaner import atomic
from allennlp_metaner.retrieval import vector_cache
from allennlp_metaner.retrieval.vector_cache import VectorCache, cache_key, new_directory, read_metadata

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
KEY = "0123abcd"
WARNING = "will be replaced"


class Compute:
    """Counts its calls."""

    def __init__(self, vectors: np.ndarray = VECTORS) -> None:
        self.vectors = vectors
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.vectors


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.endswith(".tmp")]


def fork(work: Callable[[], object]) -> ForkProcess:
    """Another process that does `work`. A fork, since importing AllenNLP takes many seconds."""
    process = get_context("fork").Process(target=work)
    process.start()
    return process


def status(process: ForkProcess) -> int | None:
    process.join()
    return process.exitcode


def test_second_request_is_a_hit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compute = Compute()
    for cache in (VectorCache(tmp_path / "new" / "cache"), VectorCache(str(tmp_path / "new" / "cache"))):
        vectors = cache.get_or_compute(KEY, compute)
        np.testing.assert_array_equal(vectors, VECTORS)
        assert vectors.dtype == np.float32
    assert compute.calls == 1
    other = Compute(VECTORS + 1)
    np.testing.assert_array_equal(cache.get_or_compute("ffff", other), VECTORS + 1)
    assert other.calls == 1
    assert not leftovers(cache.directory)
    assert not caplog.records


def test_key_depends_on_every_word_and_boundary_and_the_encoder() -> None:
    sentences = [["a", "b"], ["c"]]
    variants = [
        cache_key(sentences, "encoder"),
        cache_key(sentences, "another"),
        cache_key([["a"], ["b", "c"]], "encoder"),
        cache_key([["a", "b", "c"]], "encoder"),
        cache_key([["a b"], ["c"]], "encoder"),
        cache_key([["c"], ["a", "b"]], "encoder"),
        cache_key([["a", "b"], ["c"], []], "encoder"),
        cache_key([['a", "b'], ["c"]], "encoder"),
        cache_key([["a", "b\n"], ["c"]], "encoder"),
        cache_key([], "encoder"),
    ]
    assert len(set(variants)) == len(variants)
    assert cache_key([("a", "b"), ("c",)], "encoder") == variants[0]
    assert cache_key([["\ud800"]], "encoder") != cache_key([["?"]], "encoder")


def test_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("METANER_CACHE", raising=False)
    assert VectorCache().directory == tmp_path / ".cache" / "allennlp_metaner"
    monkeypatch.setenv("METANER_CACHE", str(tmp_path / "elsewhere"))
    assert VectorCache(None).directory == tmp_path / "elsewhere"
    assert VectorCache("~/given").directory == tmp_path / "given"


@pytest.mark.parametrize(
    ("module", "name"), [(np, "save"), (vector_cache, "file_hash"), (atomic, "_replace")]
)
def test_killed_while_writing(tmp_path: Path, module: ModuleType, name: str) -> None:
    original = getattr(module, name)

    def killed(*arguments: Any, **options: Any) -> None:
        if name == "save":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        setattr(module, name, killed)
        VectorCache(tmp_path).get_or_compute(KEY, lambda: np.ones((5, 2)))

    assert status(fork(work)) == -signal.SIGKILL
    assert len(leftovers(tmp_path)) == 1
    compute = Compute()
    cache = VectorCache(tmp_path)
    np.testing.assert_array_equal(cache.get_or_compute(KEY, compute), VECTORS)
    assert compute.calls == 1
    assert not leftovers(tmp_path)
    np.testing.assert_array_equal(cache.get_or_compute(KEY, compute), VECTORS)
    assert compute.calls == 1


def test_leftovers_of_a_live_writer_stay(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)

    def compute() -> np.ndarray:
        (tmp_path / f".{KEY}.live.tmp").mkdir()
        (tmp_path / ".dead.xyz.tmp").mkdir()
        cache.get_or_compute("ffff", Compute())
        assert leftovers(tmp_path) == [f".{KEY}.live.tmp"]
        return VECTORS

    cache.get_or_compute(KEY, compute)


def test_failed_rename_is_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("disk full")

    compute = Compute()
    with monkeypatch.context() as context:
        context.setattr(Path, "rename", refuse)
        np.testing.assert_array_equal(VectorCache(tmp_path).get_or_compute(KEY, compute), VECTORS)
    assert "disk full" in caplog.text
    assert not leftovers(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(VectorCache(tmp_path).get_or_compute(KEY, compute), VECTORS)
    assert compute.calls == 2


def flip_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: os.truncate(entry / "vectors.npy", 100),
        lambda entry: os.truncate(entry / "vectors.npy", 0),
        lambda entry: flip_byte(entry / "vectors.npy", -1),
        lambda entry: flip_byte(entry / "vectors.npy", 3),
        lambda entry: (entry / "vectors.npy").unlink(),
        lambda entry: (entry / "metadata.json").unlink(),
        lambda entry: os.truncate(entry / "metadata.json", 10),
        lambda entry: (entry / "metadata.json").write_text("[]"),
        lambda entry: (entry / "metadata.json").write_text(
            '{"sha256": {}, "shape": [2, 2], "dtype": "float32"}'
        ),
    ],
)
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    cache = VectorCache(tmp_path)
    cache.get_or_compute(KEY, Compute())
    damage(tmp_path / KEY)
    compute = Compute()

    np.testing.assert_array_equal(cache.get_or_compute(KEY, compute), VECTORS)

    assert compute.calls == 1
    assert WARNING in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(cache.get_or_compute(KEY, compute), VECTORS)
    assert compute.calls == 1
    assert not caplog.records
    assert not leftovers(tmp_path)


def test_two_processes_at_once(tmp_path: Path) -> None:
    def compute() -> np.ndarray:
        with (tmp_path / "log").open("a") as log:
            log.write("x")
        time.sleep(0.5)
        return np.full((1000, 7), 3.0, dtype=np.float32)

    def work() -> None:
        vectors = VectorCache(tmp_path / "cache").get_or_compute(KEY, compute)
        assert vectors.shape == (1000, 7) and (vectors == 3).all()

    processes = [fork(work) for _ in range(2)]
    assert [status(process) for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "x"
    assert not leftovers(tmp_path / "cache")


def test_unwritable_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    compute = Compute()
    for _ in range(2):
        vectors = VectorCache(tmp_path / "file" / "cache").get_or_compute(KEY, compute)
        np.testing.assert_array_equal(vectors, VECTORS)
    assert compute.calls == 2
    assert "cannot be written" in caplog.text


def test_errors_of_the_computation_reach_the_caller_and_free_the_lock(tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        VectorCache(tmp_path).get_or_compute(KEY, fail)
    np.testing.assert_array_equal(VectorCache(tmp_path).get_or_compute(KEY, Compute()), VECTORS)


def test_new_directory_replaces_or_leaves_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for content in ("old", "new"):
        with new_directory(target, note=content) as scratch:
            (scratch / "file").write_text(content)
    assert read_metadata(target)["note"] == "new"
    with pytest.raises(KeyboardInterrupt), new_directory(target) as scratch:
        (scratch / "file").write_text("half")
        raise KeyboardInterrupt
    assert (target / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["target"]


def test_new_directory_when_another_process_comes_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    original, others = Path.rename, iter(["first", "second", "third"])

    def rename(self: Path, destination: Path) -> Path:
        if self.name == "complete" and (content := next(others, None)):
            target.mkdir(exist_ok=True)
            (target / "file").write_text(content)
        return original(self, destination)

    monkeypatch.setattr(Path, "rename", rename)
    with new_directory(target) as scratch:
        (scratch / "file").write_text("ours")
    assert (target / "file").read_text() == "ours"
    assert vector_cache.METADATA in os.listdir(target)
