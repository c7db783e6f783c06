"""The lines of text files: what ends them, and which of them cannot be decoded."""

from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.data.lines import read_lines


def lines(directory: Path, content: bytes, encoding: str = "utf-8") -> list[str]:
    path = directory / "text.txt"
    path.write_bytes(content)
    return list(read_lines(path, encoding))


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    expected = ["a\rb", "", "c\u0085d\u2028e\x0cf", "g\u00a0", "h\t", "i"]
    content = "a\rb\n\r\nc\u0085d\u2028e\x0cf\r\ng\u00a0\nh\t\ni"
    assert lines(tmp_path, content.encode()) == expected
    assert lines(tmp_path, content.encode("utf-16"), "utf-16") == expected


def test_byte_order_mark(tmp_path: Path) -> None:
    # Only at the start of the file: elsewhere it is a character of the text.
    assert lines(tmp_path, "\ufeffa\n\ufeffb".encode()) == ["a", "\ufeffb"]


@pytest.mark.parametrize(
    ("encoding", "suggested"), [("utf-8", "latin-1"), ("UTF8", "latin-1"), ("ascii", "utf-8")]
)
def test_undecodable(tmp_path: Path, encoding: str, suggested: str) -> None:
    # Far beyond the block that Python decodes at once.
    with pytest.raises(ConfigurationError) as error:
        lines(tmp_path, b"abc\n" * 9000 + b"\xfc\n", encoding)
    assert f"text.txt:9001: not decodable as encoding={encoding!r}" in str(error.value)
    assert f"perhaps {suggested!r}" in str(error.value)
