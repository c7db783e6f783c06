"""The lines of files with one word a line."""

from itertools import dropwhile


def is_word(line: str) -> bool:
    """Whether a line belongs to a sentence."""
    return bool(line.strip()) and not line.startswith("-DOCSTART-")


def columns_of(line: str) -> list[str]:
    """The columns of a line, apart by tabs if there are any, or else by blanks."""
    return line.split("\t" if "\t" in line else None)


def without_comments(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """
    The lines of a sentence without the comments before it, `# text = ...`. A line with the word "#" has as
    many columns as the last one, apart by tabs if those are, and no equals sign.
    """
    last = lines[-1][1]

    def is_comment(numbered: tuple[int, str]) -> bool:
        _, line = numbered
        is_assignment = line.startswith("# ") and "=" in line
        is_like_last = len(columns_of(line)) == len(columns_of(last)) and ("\t" in line) == ("\t" in last)
        return line.startswith("#") and (is_assignment or not is_like_last)

    return list(dropwhile(is_comment, lines))
