"""The lines of text files: what ends them, and which of them cannot be decoded."""

import gzip
from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.data.lines import UNDECODED, read_lines, read_text


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


TEXTS = {
    "cp1251": "Анна Новак приехала в Москву в понедельник, сообщил банк.",
    "gb18030": "王小明访问了北京。他很高兴。中国银行的行长说了很多话。",
    "cp932": "田中さんは東京で会議に出席しました。",
    "cp949": "김철수는 서울에서 회의에 참석했다고 말했다.",
    "utf-16": "María vive aquí.\nSí.",
}


@pytest.mark.parametrize("guess", TEXTS)
def test_undecodable(tmp_path: Path, guess: str) -> None:
    content = TEXTS[guess].encode(guess)
    number = 1
    if guess != "utf-16":
        # Far beyond the block that Python decodes at once, and after nothing that tells the encoding.
        content, number = b"abc O\n" * 9000 + content + b"\n", 9001
    with pytest.raises(ConfigurationError) as error:
        lines(tmp_path, content)
    assert f"text.txt:{number}: not decodable as encoding='utf-8'" in str(error.value)
    assert f"perhaps {guess!r}" in str(error.value)


def test_other_encodings_than_utf_8(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"text.txt:2: .*encoding='ascii'.*perhaps 'utf-8'"):
        lines(tmp_path, "a\né".encode(), "ascii")
    with pytest.raises(ConfigurationError, match=r"text.txt:1: .*encoding='utf-16'.*perhaps 'utf-8'"):
        lines(tmp_path, "aé".encode(), "utf-16")
    with pytest.raises(ConfigurationError, match=r"text.txt:1: .*perhaps 'latin-1'"):
        lines(tmp_path, "María Muñoz visitó Málaga y Cádiz.".encode("latin-1"))


def test_gzip(tmp_path: Path) -> None:
    content = gzip.compress("María\r\nNovak".encode())
    assert lines(tmp_path, content) == ["María", "Novak"]
    assert read_text(tmp_path / "text.txt", "utf-8") == "María\r\nNovak"
    with pytest.raises(ConfigurationError, match=r"text.txt: is compressed by gzip, but damaged"):
        lines(tmp_path, content[:-12])
    with pytest.raises(ConfigurationError, match=r"text.txt: is compressed by gzip, but damaged"):
        lines(tmp_path, content[:2])


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read .*METANER_DATA"):
        list(read_lines(tmp_path / "missing", "utf-8"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"text.txt:1: .*perhaps '{encoding}'"):
        lines(tmp_path, "Anna O\nleft O\n".encode(encoding))
    assert lines(tmp_path, "Anna O\nleft O\n".encode(encoding), encoding) == ["Anna O", "left O"]


def test_lines_after_an_undecodable_one(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"a\n\xff\nb\n")
    found = list(read_lines(path, "utf-8", strict=False))
    assert found == ["a", "\udcff", "b"]
    assert [bool(UNDECODED.search(line)) for line in found] == [False, True, False]
