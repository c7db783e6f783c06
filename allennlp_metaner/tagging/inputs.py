"""Documents from files, folders and standard input."""

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.data.doc_bin_reader import read_docs
from allennlp_metaner.data.json_reader import json_items
from allennlp_metaner.data.json_sentences import TEXT_FIELDS, WORD_FIELDS, load_json
from allennlp_metaner.data.lines import UNDECODED, read_lines, read_text, undecodable
from allennlp_metaner.data.table_reader import read_table
from allennlp_metaner.tagging.column_lines import columns_of, is_word, without_comments
from allennlp_metaner.tagging.documents import Source, of_sentences

FORMATS = {
    "text": {".txt", ".text", ".md"},
    "jsonl": {".jsonl", ".ndjson", ".json"},
    "csv": {".csv"},
    "spacy": {".spacy"},
    "parquet": {".parquet"},
    "columns": {".conll", ".conllu", ".bio", ".iob", ".iob2", ".tsv"},
}
"""Formats of input, and the names of files that have them."""

STANDARD_INPUT = "-"
# Rows of a Parquet file that are in memory at the same time.
ROWS_AT_ONCE = 1024
# A longer paragraph of a text that is streamed ends at the end of a line.
LONGEST_PARAGRAPH = 10_000


def input_files(inputs: Sequence[str]) -> list[str]:
    """
    The files of the inputs; those of a folder, and of the folders inside, by name.

    # Raises

    `ConfigurationError`, if there is no such file, or none in a folder.
    """
    files: list[str] = []
    for name in inputs:
        path = Path(name)
        if name != STANDARD_INPUT and path.is_dir():
            inside = sorted(str(file) for file in path.rglob("*") if _is_visible_file(file, path))
            if not inside:
                raise ConfigurationError(f"{name}: there are no files in this folder")
            files += inside
        elif name == STANDARD_INPUT or path.is_file():
            files.append(name)
        else:
            raise ConfigurationError(f"{name}: there is no such file or folder. Check the path")
    return files


def _is_visible_file(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden


def read_sources(
    files: Iterable[str],
    format: Optional[str] = None,
    encoding: str = "utf-8",
    word_column: int = 0,
    paragraphs: bool = False,
) -> Iterator[Source]:
    """
    The documents of files.

    # Parameters

    files : `Iterable[str]`
        Paths; "-" is standard input. Files that gzip compressed are read like others.
    format : `str`, optional (default = `None`)
        "text": a file is a document. "jsonl": a line is a document, with a raw `text` (or `sentence`), or the
        `words` (or `tokens`) of a sentence; its other fields are kept; a file may also be one JSON list of
        such objects. "csv": a row is a document, with a column `text` (or `sentence`) by the first line; its
        other columns are kept. "parquet": the same with the rows of a Parquet file, which may also have
        `words`. "spacy": the texts of a DocBin of spaCy. "columns": each sentence of a file with one word a
        line is a document. `None`: by the name of the file; "text", if that says nothing.
    encoding : `str`, optional (default = `"utf-8"`)
    word_column : `int`, optional (default = `0`)
        For "columns": where the word is, from 0, or from -1 at the end of the line backwards.
    paragraphs : `bool`, optional (default = `False`)
        For "text": whether each paragraph is a document, with the line where it starts, so that a file need
        not fit into memory. Blank lines end a paragraph, and, after 10,000 characters, any line does.

    # Returns

    `Iterator[Source]`
        What cannot be read is a `Source` with an `error`.
    """
    for file in files:
        kind = format or _format_of(file)
        try:
            if kind == "text" and paragraphs:
                yield from _paragraphs(file, encoding)
            elif kind == "text":
                yield Source(_text(file, encoding), name=file, meta={"file": file})
            elif kind == "jsonl":
                yield from _json_lines(file, encoding)
            elif kind == "csv":
                yield from _rows(file, _decoded(file, encoding))
            elif kind == "spacy":
                yield from _docs(file)
            elif kind == "parquet":
                yield from _parquet(file)
            else:
                yield from _columns(file, encoding, word_column)
        except ConfigurationError as error:
            yield Source("", name=file, meta={"file": file}, error=_message(error))


def _format_of(file: str) -> str:
    suffixes = [suffix for suffix in Path(file).suffixes if suffix != ".gz"]
    for name, endings in FORMATS.items():
        if suffixes and suffixes[-1].lower() in endings:
            return name
    return "text"


def _text(file: str, encoding: str) -> str:
    if file != STANDARD_INPUT:
        return read_text(file, encoding)
    text = "".join(_standard_input(encoding))
    if UNDECODED.search(text):
        raise ConfigurationError(_undecodable(file, encoding))
    return text


def _paragraphs(file: str, encoding: str) -> Iterator[Source]:
    lines: list[str] = []
    first = size = 0
    # A blank line at the end, so that the last paragraph ends, too.
    for number, line in enumerate(chain(_lines(file, encoding), [""]), start=1):
        if line.strip():
            first = first if lines else number
            lines.append(line)
            size += len(line)
        if lines and (not line.strip() or size > LONGEST_PARAGRAPH):
            text, name = "\n".join(lines), f"{file}:{first}"
            if UNDECODED.search(text):
                yield Source("", name=name, error=_undecodable(file, encoding))
            else:
                yield Source(text, name=name, meta={"file": file, "line": first})
            lines, size = [], 0


def _lines(file: str, encoding: str) -> Iterator[str]:
    """The lines, with what `UNDECODED` finds in those that are not in `encoding`."""
    if file == STANDARD_INPUT:
        return (line.rstrip("\r\n") for line in _standard_input(encoding))
    return read_lines(file, encoding, strict=False)


def _decoded(file: str, encoding: str) -> Iterator[str]:
    for line in _lines(file, encoding):
        if UNDECODED.search(line):
            raise ConfigurationError(_undecodable(file, encoding))
        yield line


def _standard_input(encoding: str) -> Iterator[str]:
    try:
        lines = io.TextIOWrapper(sys.stdin.buffer, encoding, errors="surrogateescape", newline="\n")
        for number, line in enumerate(lines):
            yield line if number else line.removeprefix("\ufeff")
    except UnicodeError as error:  # From UTF-16 and its like, where bytes cannot be escaped.
        raise ConfigurationError(_undecodable(STANDARD_INPUT, encoding)) from error


def _undecodable(file: str, encoding: str) -> str:
    if file == STANDARD_INPUT:
        return f"not decodable as encoding={encoding!r}. Give the encoding of standard input"
    return undecodable(file, encoding)


def _json_lines(file: str, encoding: str) -> Iterator[Source]:
    for place, content in json_items(_lines(file, encoding), file):
        if isinstance(content, str) and UNDECODED.search(content):
            yield Source("", name=place, error=_undecodable(file, encoding))
        else:
            yield _json_object(content, place)


def _json_object(content: Any, name: str) -> Source:
    try:
        fields = load_json(content, "the line") if isinstance(content, str) else content
    except ConfigurationError as error:
        return Source("", name=name, error=_message(error))
    if isinstance(fields, dict):
        for key in TEXT_FIELDS:
            if isinstance(fields.get(key), str):
                return Source(fields[key], name=name, meta=fields)
        for key in WORD_FIELDS:
            if isinstance(fields.get(key), list):
                return _of_words(fields[key], name, fields)
    meta = fields if isinstance(fields, dict) else {}
    valid = '{"text": "..."} or {"words": ["a", "list"]}'
    message = f"{str(content)[:80]!r} has no text and no words: give {valid}"
    return Source("", name=name, meta=meta, error=message)


def _rows(file: str, lines: Iterator[str]) -> Iterator[Source]:
    for row in read_table(lines, file):
        if row.cells:
            text = next((row.cells[name] for name in TEXT_FIELDS if name in row.cells), None)
            if text is None:
                raise ConfigurationError(
                    f"there is no column text in the first line, which has {', '.join(row.cells)}. Name the "
                    "column with the texts so, or give --input-format columns for a file with a word a line"
                )
            yield Source(text, name=f"{file}:{row.line}", meta=row.cells)


def _docs(file: str) -> Iterator[Source]:
    if file == STANDARD_INPUT:
        raise ConfigurationError("standard input cannot be a DocBin. Give the file's name")
    for number, doc in enumerate(read_docs(file), start=1):
        yield Source(doc.text, name=f"{file}: document {number}", meta={"file": file, "document": number})


def _parquet(file: str) -> Iterator[Source]:
    if file == STANDARD_INPUT:
        raise ConfigurationError("standard input cannot be a Parquet file. Give the file's name")
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise ConfigurationError(
            f"needs the package pyarrow ({error}): install allennlp-metaner[ray]"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            for row in chain.from_iterable(batch.to_pylist() for batch in table.iter_batches(ROWS_AT_ONCE)):
                number += 1
                # Dates and the like have no form in JSON, in which the row goes on.
                yield _json_object(json.dumps(row, default=str), f"{file}: row {number}")
    except (ArrowInvalid, OSError) as error:
        raise ConfigurationError(f"is no Parquet file, or damaged after row {number} ({error})") from error


def _columns(file: str, encoding: str, word_column: int) -> Iterator[Source]:
    numbered = enumerate(_lines(file, encoding), start=1)
    for of_words, group in groupby(numbered, key=lambda line: is_word(line[1])):
        lines = without_comments(list(group)) if of_words else []
        if lines:
            name = f"{file}:{lines[0][0]}"
            if any(UNDECODED.search(line) for _, line in lines):
                yield Source("", name=name, error=_undecodable(file, encoding))
            else:
                yield _of_rows(lines, name, word_column)


def _of_rows(lines: Sequence[tuple[int, str]], name: str, word_column: int) -> Source:
    words = []
    for number, line in lines:
        cells = columns_of(line)
        if not (-len(cells) <= word_column < len(cells) and cells[word_column].strip()):
            error = (
                f"line {number}, {line[:80]!r}, has no word in column {word_column}. Correct --word-column"
            )
            return Source("", name=name, error=error)
        words.append(cells[word_column])
    return _of_words(words, name, {})


def _of_words(words: list[Any], name: str, meta: dict[str, Any]) -> Source:
    try:
        source = of_sentences([words], name)
    except ConfigurationError as error:
        return Source("", name=name, meta=meta, error=_message(error))
    source.meta = meta
    return source


def _message(error: ConfigurationError) -> str:
    return str(error.message)
