"""The lines of a text file, with errors that say where and how to go on."""

import codecs
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.data.dataset_readers.dataset_reader import PathOrStr
from charset_normalizer import from_bytes

# What the error handler "surrogateescape" puts in place of bytes that do not decode. Python's own error tells
# a position in a block of the file, which is of no use to anyone who wants to mend a line.
UNDECODED = re.compile("[\udc80-\udcff]")

GZIP_START = b"\x1f\x8b"
BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
BYTE_ORDER_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
BYTE_ORDER_MARKS |= {codecs.BOM_UTF8: "utf-8"}
# Enough to tell encodings apart, and little enough to be read when something is wrong anyway.
BYTES_TO_GUESS_FROM = 100_000
LINES_TO_GUESS_FROM = 1000
# A few accented letters can be anything; most often they are these of Western Europe.
BYTES_THAT_TELL = 10
WIDE_ENCODINGS = ["utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be", "utf_7"]


def open_bytes(path: PathOrStr) -> BinaryIO:
    """The bytes of a file on this machine, decompressed if they are a gzip file's, whatever it is called."""
    with open(path, "rb") as file:
        start = file.read(len(GZIP_START))
    return cast(BinaryIO, gzip.open(path, "rb")) if start == GZIP_START else open(path, "rb")


def read_lines(file_path: PathOrStr, encoding: str, strict: bool = True) -> Iterator[str]:
    """
    The lines of a file, one by one, without their ends and without a byte order mark. A file compressed by
    gzip is decompressed.

    Only a line feed (with or without a carriage return) ends a line: `str.splitlines` would also cut at
    characters such as U+0085 and U+2028, which occur inside of words.

    # Parameters

    file_path : `PathOrStr`
        A path or an address that AllenNLP's `cached_path` knows.
    encoding : `str`
    strict : `bool`, optional (default = `True`)
        If false, a line with bytes that are not in `encoding` is no error, if lines can be told without them,
        and [`UNDECODED`](#undecoded) finds those bytes.

    # Returns

    `Iterator[str]`

    # Raises

    `ConfigurationError`, if the file cannot be read or a line is not in `encoding`.
    """
    for line in _raw_lines(file_path, encoding, strict):
        yield line.rstrip("\r\n")


def read_text(file_path: PathOrStr, encoding: str) -> str:
    """The whole text of a file, with its line ends; otherwise like [`read_lines`](#read_lines)."""
    return "".join(_raw_lines(file_path, encoding, strict=True))


def _raw_lines(file_path: PathOrStr, encoding: str, strict: bool) -> Iterator[str]:
    number = 0
    try:
        local = cached_path(file_path)
        with (
            open_bytes(local) as binary,
            io.TextIOWrapper(binary, encoding, errors="surrogateescape", newline="\n") as file,
        ):
            for number, line in enumerate(file, start=1):
                # Text of ASCII in UTF-16 is also valid UTF-8, with a zero beside each letter.
                if (strict and UNDECODED.search(line)) or (number == 1 and "\0" in line):
                    raise _undecodable(file_path, number, encoding)
                yield line.removeprefix("\ufeff") if number == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigurationError(
            f"{file_path}: is compressed by gzip, but damaged after line {number} ({error}). Get it anew"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{file_path}: cannot be read ({error}). Check the path of the data; the configs that come with "
            "this package look for it in the folder that the environment variable METANER_DATA names"
        ) from error
    except UnicodeError as error:  # From UTF-16 and its like, where bytes cannot be escaped.
        raise _undecodable(file_path, number + 1, encoding) from error


def _undecodable(file_path: PathOrStr, number: int, encoding: str) -> ConfigurationError:
    return ConfigurationError(f"{file_path}:{number}: {undecodable(file_path, encoding)}")


def undecodable(file_path: PathOrStr, encoding: str) -> str:
    """What is wrong with a line of a file that is not in `encoding`, and which encoding it may be."""
    guess = _guessed_encoding(Path(cached_path(file_path)))
    advice = f"perhaps {guess!r}" if guess else "which cannot be guessed from its bytes"
    return f"not decodable as encoding={encoding!r}. Give the encoding of the file, {advice}"


def _guessed_encoding(path: Path) -> str | None:
    with open_bytes(path) as file:
        start = file.read(BYTES_TO_GUESS_FROM)
        file.seek(0)
        telling = itertools.islice((line for line in file if not line.isascii()), LINES_TO_GUESS_FROM)
        # Lines of ASCII tell nothing, and hide what the others tell; in UTF-16, a byte does not end a line.
        wide = b"\0" in start
        content = start if wide else b"".join(telling)
    for mark, name in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return name
    if wide and content.isascii():
        return "utf-16-le" if content[1::2].count(0) > content[::2].count(0) else "utf-16-be"
    try:
        content.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        if sum(byte > 127 for byte in content) < BYTES_THAT_TELL and not wide:
            return "latin-1"
        # Of UTF-16, text that is not all ideographs has line ends and blanks, with zeros.
        best = from_bytes(content, cp_exclusion=None if wide else WIDE_ENCODINGS).best()
    return None if best is None else best.encoding
