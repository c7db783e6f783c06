"""The hash of a file against the standard library's of its bytes."""

import hashlib
from pathlib import Path

import pytest

from allennlp_metaner.file_hash import file_hash


@pytest.mark.parametrize("size", [0, 3, 1 << 20, (1 << 20) + 1])
def test_is_sha256(size: int, tmp_path: Path) -> None:
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    assert (
        file_hash(tmp_path / "file")
        == file_hash(str(tmp_path / "file"))
        == hashlib.sha256(content).hexdigest()
    )
