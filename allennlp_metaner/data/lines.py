"""The lines of a text file, with errors that say where and how to go on."""

import codecs
import re
from collections.abc import Iterator

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.data.dataset_readers.dataset_reader import PathOrStr

# What the error handler "surrogateescape" puts in place of bytes that do not decode. Python's own error tells
# a position in a block of the file, which is of no use to anyone who wants to mend a line.
UNDECODED = re.compile("[\udc80-\udcff]")


def read_lines(file_path: PathOrStr, encoding: str) -> Iterator[str]:
    """
    The lines of a file, one by one, without their ends and without a byte order mark.

    Only a line feed (with or without a carriage return) ends a line: `str.splitlines` would also cut at
    characters such as U+0085 and U+2028, which occur inside of words.

    # Parameters

    file_path : `PathOrStr`
        A path or an address that AllenNLP's `cached_path` knows.
    encoding : `str`

    # Returns

    `Iterator[str]`

    # Raises

    `ConfigurationError`, if the file cannot be read or a line is not in `encoding`.
    """
    number = 0
    try:
        with open(cached_path(file_path), encoding=encoding, errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if UNDECODED.search(line):
                    raise _undecodable(f"{file_path}:{number}", encoding)
                yield (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(
            f"{file_path}: cannot be read ({error}). Check the path of the data; the configs that come with "
            "this package look for it in the folder that the environment variable METANER_DATA names"
        ) from error
    except UnicodeError as error:  # From UTF-16 and its like, where bytes cannot be escaped.
        raise _undecodable(f"{file_path}:{number + 1}", encoding) from error


def _undecodable(place: str, encoding: str) -> ConfigurationError:
    other = "latin-1" if codecs.lookup(encoding).name == "utf-8" else "utf-8"
    return ConfigurationError(
        f"{place}: not decodable as encoding={encoding!r}. Give the encoding of the file, perhaps {other!r}"
    )
