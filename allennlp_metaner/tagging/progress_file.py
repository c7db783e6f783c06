"""What a run of the labelling command has finished, so that the next one can go on from there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.tagging.results import Document


class ProgressFile:
    """
    The documents that are done, beside the output file: a line of JSON that describes the run, then a line
    for each document. A line that an interruption left unfinished does not count.

    # Parameters

    output : `Path`
        The output file. The progress file has ".part" after its name.
    run : `dict[str, Any]`
        What the results depend on.

    # Raises

    `ConfigurationError`, if there is a progress file of another run.
    """

    def __init__(self, output: Path, run: dict[str, Any]) -> None:
        self.path = output.with_name(f"{output.name}.part")
        self.num_done = 0
        # What JSON makes of it, to compare it with what was read.
        run = json.loads(json.dumps(run))
        output.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._drop_unfinished_line()
            lines = self._lines()
            first = next(lines, None)
            if first is not None and first != run:
                changed = [key for key in run if first.get(key) != run[key]]
                raise ConfigurationError(
                    f"{self.path} is of a run with other settings: {', '.join(changed)}. Give the same ones "
                    "to finish it, or delete the file to begin anew"
                )
            self.num_done = sum(1 for _ in lines)
        # Opened now, so that a folder that cannot be written to is found before the work.
        self._file = self.path.open("a", encoding="utf-8")
        if self._file.tell() == 0:
            self._write(run)

    def add(self, document: Document) -> None:
        """Note down a finished document."""
        self._write(document.state())

    def documents(self) -> Iterator[Document]:
        """All finished documents, in order."""
        lines = self._lines()
        next(lines)
        return (Document.from_state(state) for state in lines)

    def close(self, remove: bool = False) -> None:
        """Close the file, and remove it if the output is complete."""
        self._file.close()
        if remove:
            self.path.unlink()

    def _write(self, content: dict[str, Any]) -> None:
        # ASCII, since lone surrogates have no form in UTF-8.
        self._file.write(f"{json.dumps(content)}\n")
        self._file.flush()

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def _drop_unfinished_line(self) -> None:
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
        os.truncate(self.path, end)
