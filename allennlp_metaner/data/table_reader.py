"""The reader for tables with a header: CSV and TSV files with a row for each word."""

import csv
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr

from allennlp_metaner.data.lines import read_lines
from allennlp_metaner.data.sentence_reader import Labelled, SentenceReader, naming


class Row(NamedTuple):
    """A row of a table: the line of the file where it begins, and its cells by the names of their columns."""

    line: int
    cells: dict[str, str]


@DatasetReader.register("ner_table")
class TableReader(SentenceReader):
    """
    Reads files whose first line names the columns, and whose other lines have a word each. Cells may be in
    quotes, as `csv` of Python's library reads them.

    A sentence ends with a blank line, and, if there is a `sentence_column`, where that has another value: it
    may stand in each row, or only in the first one of a sentence.

    Instances are those of [`SentenceReader`](./sentence_reader.md#sentencereader).

    Registered as a `DatasetReader` with name "ner_table".

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    word_column : `str`, optional (default = `"word"`)
        The name of the column with the words.
    tag_column : `str`, optional (default = `"tag"`)
    sentence_column : `str`, optional (default = `None`)
        The name of the column with the sentence's number or name.
    separator : `str`, optional (default = `None`)
        If `None`, a tab for a file whose first line has one, and else a comma.
    quote : `str`, optional (default = `'"'`)
        What quotes a cell. Give "" for files in which it is a character like others.
    encoding : `str`, optional (default = `"utf-8"`)
    scheme : `str`, optional (default = `"BIO"`)
        The tag scheme of the file, see [`SCHEMES`](./tag_schemes.md#schemes).
    label_map : `Dict[str, str]`, optional (default = `None`)
        New names of entity types; "O" drops a type.
    max_instances : `int`, optional (default = `None`)

    # Raises

    `ConfigurationError`, naming the argument or `file:line`.
    """

    EXPECTED = "a first line that names the columns, and a row for each word"

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        word_column: str = "word",
        tag_column: str = "tag",
        sentence_column: Optional[str] = None,
        separator: Optional[str] = None,
        quote: str = '"',
        encoding: str = "utf-8",
        scheme: str = "BIO",
        label_map: Optional[dict[str, str]] = None,
        max_instances: Optional[int] = None,
    ) -> None:
        super().__init__(token_indexers, encoding, scheme, label_map, max_instances)
        for name, value in (("separator", separator or ","), ("quote", quote or '"')):
            if len(value) != 1:
                raise ConfigurationError(f"{name}={value!r} must be a single character")
        self._word_column = word_column
        self._tag_column = tag_column
        self._sentence_column = sentence_column
        self._separator = separator
        self._quote = quote

    def _sentences(self, file_path: PathOrStr) -> Iterator[Labelled]:
        names = [self._word_column, self._tag_column]
        if self._sentence_column is not None:
            names.append(self._sentence_column)
        rows = read_table(
            read_lines(file_path, self._encoding), file_path, self._separator, self._quote, names
        )
        for _, group in groupby(self._numbered(rows), key=lambda numbered: numbered[0]):
            sentence = [row for _, row in group]
            place = f"{file_path}:{sentence[0].line}"
            words = [row.cells[self._word_column] for row in sentence]
            for row, word in zip(sentence, words, strict=True):
                _check_word(word, f"{file_path}:{row.line}")
                with naming(f"{file_path}:{row.line}"):
                    self._bio([row.cells[self._tag_column]])
            yield Labelled(place, words, self._bio([row.cells[self._tag_column] for row in sentence]))

    def _numbered(self, rows: Iterator[Row]) -> Iterator[tuple[int, Row]]:
        """The rows that are not blank, with the number of their sentence."""
        number, previous, ended = 0, "", False
        for row in rows:
            name = row.cells.get(self._sentence_column or "", "").strip()
            if not any(cell.strip() for cell in row.cells.values()):
                ended = True
                continue
            if ended or (name and name != previous):
                number += 1
            previous, ended = name or previous, False
            yield number, row


def _check_word(word: str, place: str) -> None:
    if not word.strip():
        raise ConfigurationError(f"{place}: the word is empty. Correct the row or word_column")
    if "\n" in word:
        raise ConfigurationError(
            f"{place}: the word {word!r} has a line end inside. Correct the quotes of the row, or, if quotes "
            "are words like others there, give quote = ''"
        )


def read_table(
    lines: Iterator[str],
    file_path: PathOrStr,
    separator: Optional[str] = None,
    quote: str = '"',
    required: Sequence[str] = (),
) -> Iterator[Row]:
    """
    # Parameters

    lines : `Iterator[str]`
        Without their ends.
    file_path : `PathOrStr`
        Where they are from, for messages.
    separator : `str`, optional (default = `None`)
        If `None`, a tab for a file whose first line has one, and else a comma.
    quote : `str`, optional (default = `'"'`)
        What quotes a cell, or "".
    required : `Sequence[str]`, optional (default = `()`)
        The columns that must be there.

    # Returns

    `Iterator[Row]`
        The rows after the header. A blank line is a row without cells.

    # Raises

    `ConfigurationError`, if the file is empty, lacks a column, or has a row that is malformed.
    """
    first = next(lines, "")
    dialect: dict[str, Any] = {"delimiter": separator or ("\t" if "\t" in first else ","), "strict": True}
    dialect |= {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        header = next(csv.reader([first], **dialect), [])
    except csv.Error as error:
        raise ConfigurationError(f"{file_path}:1: the first line is no CSV ({error})") from error
    missing = [name for name in required if name not in header]
    if missing:
        raise ConfigurationError(
            f"{file_path}:1: there is no column {missing[0]!r} in the first line, which has "
            f"{', '.join(map(repr, header))}. Give the names of the columns (word_column, tag_column, ...) "
            "as they are there, or the separator"
        )
    reader = csv.reader((f"{line}\n" for line in lines), **dialect)
    while True:
        number = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ConfigurationError(
                f"{file_path}:{number}: the row is no CSV ({error}). Correct it, or, if quotes are words "
                "like others there, give quote = ''"
            ) from error
        if cells and len(cells) != len(header):
            raise ConfigurationError(
                f"{file_path}:{number}: {len(cells)} cells in {cells}, but {len(header)} by the first line. "
                "Correct the row, or give the separator"
            )
        yield Row(number, dict(zip(header, cells, strict=False)))
