"""Workers of Ray write what one process writes, also if one of them is killed."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.retrieval.pool_encoding import encode_in_shards
from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder, TransformerSentenceEncoder
from allennlp_metaner.sharding import ray_workers
from allennlp_metaner.sharding.ray_workers import ENVIRONMENT
from allennlp_metaner.sharding.shard_folder import ShardFolder
from allennlp_metaner.tagging.shard_labelling import ShardLabelling
from tests.conftest import tiny_sentences

DOCUMENTS = 5


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray of two cores for all tests of this file: it takes longer to start than they take."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", "1")
        # Where the tests are, workers find what they need.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *_old_python_path()]))
        import ray

        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
        yield ray
        ray.shutdown()


def _old_python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def worker_processes() -> list[int]:
    """The processes of this machine that are actors with shards to write, begun by this process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, stat = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        if b"ShardWriter" in name and _is_ours(parent):
            found.append(int(folder.name))
    return found


def _is_ours(process: int) -> bool:
    while process > 1:
        if process == os.getpid():
            return True
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux to find the workers")
def test_an_adapted_model_and_a_killed_worker(tmp_path: Path, tiny_run: SimpleNamespace, ray: Any) -> None:
    text = tmp_path / "text.jsonl"
    lines = [json.dumps({"words": words}) for words, _ in tiny_sentences()[:60]]
    text.write_text("\n".join(lines), "utf-8")
    labelling = ShardLabelling(
        str(tiny_run.archive),
        [str(text)],
        documents_per_shard=DOCUMENTS,
        tagger={"adapt": True},
        details=True,
    )
    expected = labelling.write(tmp_path / "here")
    killed: list[int] = []

    def kill(shard: int) -> None:
        if not killed:
            killed.extend(worker_processes()[:1])
            os.kill(killed[0], signal.SIGKILL)

    found = labelling.write(tmp_path / "workers", num_workers=2, on_shard=kill)
    assert killed
    assert found == expected and found["documents"] == len(lines) and found["errors"] == 0
    assert contents(tmp_path / "workers") == contents(tmp_path / "here")
    # This Ray was there before, and still is.
    assert ray.is_initialized()


class OneThread(SentenceEncoder):
    """The tiny encoder, but only in a worker, and only with the threads that a worker should have."""

    def __init__(self, model_name: str, process: int) -> None:
        self._encoder = TransformerSentenceEncoder(model_name)
        self._process = process

    def encode(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        if (
            os.getpid() == self._process
            or torch.get_num_threads() != 1
            or ENVIRONMENT.items() - os.environ.items()
        ):
            raise ConfigurationError(f"process {os.getpid()}, {torch.get_num_threads()} threads")
        return self._encoder.encode(sentences)


def test_a_pool(tmp_path: Path, tiny_encoder: str, ray: Any) -> None:
    sentences = [words for words, _ in tiny_sentences()]
    here = TransformerSentenceEncoder(tiny_encoder)
    expected = encode_in_shards(here, sentences, tmp_path / "here", "key", None, 20)
    workers = OneThread(tiny_encoder, os.getpid())
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        encode_in_shards(workers, sentences, tmp_path / "shards", "key", None, 20)
    found = encode_in_shards(workers, sentences, tmp_path / "shards", "key", 1, 20)
    np.testing.assert_array_equal(found, expected)


def test_what_is_there_is_not_written_again_and_errors_are_data(tmp_path: Path) -> None:
    """An actor, without Ray around it."""

    def load() -> Any:
        raise ConfigurationError("no model")

    folder = ShardFolder(tmp_path, "txt")
    folder.write(3, b"three")
    writer = ray_workers._ShardWriter(folder, load)
    tables = list(ray_workers._read_shards(None, lambda: [["a"]] * 5, frozenset({0, 2, 4})))
    assert [table["shard"].to_pylist() for table in tables] == [[1], [3]]
    rows = [writer(table).to_pylist() for table in tables]
    assert rows == [[{"shard": 1, "error": "no model"}], [{"shard": 3, "error": ""}]]
    assert folder.done() == {3} and folder.file(3).read_text() == "three"
