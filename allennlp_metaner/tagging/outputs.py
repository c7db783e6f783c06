"""Labelled documents to files: JSON lines, columns, CSV, spaCy's DocBin, HTML, marked text."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.data.json_sentences import json_line
from allennlp_metaner.page_style import PAGE_END, page_start
from allennlp_metaner.tagging import rendering
from allennlp_metaner.tagging.results import Document

ENDINGS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".conll": "conll",
    ".bio": "conll",
    ".iob2": "conll",
    ".tsv": "conll",
    ".csv": "csv",
    ".spacy": "spacy",
    ".html": "html",
    ".htm": "html",
    ".txt": "text",
}
"""The format of a file by the end of its name."""

CSV_COLUMNS = ("document", "start", "end", "text", "label", "confidence")


def format_of(path: Path) -> str:
    """
    The format of an output file.

    # Raises

    `ConfigurationError`, if its name does not tell.
    """
    try:
        return ENDINGS[path.suffix.lower()]
    except KeyError as error:
        raise ConfigurationError(
            f"{path}: the name does not tell the format. End it in one of {', '.join(ENDINGS)}, or give "
            f"--format (one of {', '.join(FORMATS)})"
        ) from error


def json_lines(documents: Iterable[Document], sentences: bool = False) -> Iterator[str]:
    """
    A line for each document: the fields that came with it, `text`, `entities`, with `sentences` those too,
    and `error` for one that could not be labelled.
    """
    for document in documents:
        yield json_line({**document.meta, **document.to_dict(sentences)})


def conll(documents: Iterable[Document], sentences: bool = False) -> Iterator[str]:
    """Columns of words and tags, see [`conll`](./rendering.md#conll)."""
    return (document.to_conll() for document in documents)


def csv_rows(documents: Iterable[Document], sentences: bool = False) -> Iterator[str]:
    """A row for each entity, after a header; `document` is the file, or file and line."""
    yield _row(CSV_COLUMNS)
    for document in documents:
        for entity in document.entities:
            text = rendering.without_surrogates(entity.text)
            yield _row((document.name, entity.start, entity.end, text, entity.label, entity.confidence))


def html(documents: Iterable[Document], sentences: bool = False) -> Iterator[str]:
    """A page that loads and runs nothing, for light and dark screens."""
    yield page_start("Names", rendering.PAGE_STYLE)
    for document in documents:
        yield f"<h2>{rendering.escape(document.name)}</h2>\n"
        yield document.to_html() if document.error is None else f"<p>{rendering.escape(document.error)}</p>"
        yield "\n"
    yield PAGE_END


def text(documents: Iterable[Document], sentences: bool = False) -> Iterator[str]:
    """The texts with their entities in brackets."""
    return (f"{rendering.marked(document)}\n" for document in documents)


FORMATS: dict[str, Callable[[Iterable[Document], bool], Iterator[str]]] = {
    "jsonl": json_lines,
    "conll": conll,
    "csv": csv_rows,
    "html": html,
    "text": text,
}
"""Formats that are text. The other one is "spacy"."""


def doc_bin(documents: Iterable[Document]) -> bytes:
    """spaCy's DocBin, with a blank document for one that could not be labelled."""
    import spacy
    from spacy.tokens import DocBin

    vocab = spacy.blank("xx").vocab
    binary = DocBin(attrs=["ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE"])
    for document in documents:
        binary.add(document.to_spacy(vocab))
    content: bytes = binary.to_bytes()
    return content


def _row(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
