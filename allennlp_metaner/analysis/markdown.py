"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """
    # Parameters

    columns : `Sequence[str]`
        The names in the first line.
    rows : `Iterable[Sequence[str]]`
        As many texts each as there are columns. Bars and line ends in them do not break the table.
    left : `int`, optional (default = `1`)
        How many of the first columns are aligned to the left; the others hold numbers.

    # Returns

    `str`
        The table, with a line end after each line.
    """
    alignment = ["---" if number < left else "---:" for number in range(len(columns))]
    lines = [_line(columns), f"| {' | '.join(alignment)} |", *map(_line, rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(text.split()).replace('|', chr(92) + '|') for text in texts)} |"
