"""
What `metaner-label` adds to the engine: reading, progress file, bar and writing, start-up aside.

    python benchmarks/label.py runs/student/es/13370 --text esp.jsonl

The sentences of the text (JSON lines with `words` or `text`) are repeated until there are enough. They are
labelled in turns by `NameTagger.pipe`, which throws the results away, and by the command in the same process,
which is given the same tagger and writes JSON lines.
"""

import argparse
import tempfile
from collections import deque
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from allennlp.commands import main as allennlp
from run import all_times

from allennlp_metaner import NameTagger
from allennlp_metaner.tagging.inputs import read_sources


def main() -> None:
    """Measure, and print the times of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("archive")
    parser.add_argument("--text", required=True, help="JSON lines")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--adapt", action="store_true", help="adapt the model to each sentence")
    arguments = parser.parse_args()
    tagger = NameTagger.load(arguments.archive, adapt=arguments.adapt)
    with tempfile.TemporaryDirectory() as name:
        text, output = Path(name) / "text.jsonl", Path(name) / "names.jsonl"
        with open(arguments.text, encoding="utf-8") as file:
            lines = file.readlines()
        text.write_text("".join(islice(cycle(lines), arguments.sentences)), encoding="utf-8")
        sources = list(read_sources([str(text)]))
        command = ["allennlp", "metaner-label", arguments.archive, str(text), "-o", str(output), "--force"]

        def engine() -> None:
            deque(tagger.pipe(sources), maxlen=0)

        def by_command() -> None:
            with mock.patch.object(NameTagger, "load", return_value=tagger), mock.patch("sys.argv", command):
                allennlp()

        alone, whole = all_times(arguments.rounds, engine, by_command)
    print(f"{arguments.sentences} sentences, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for system, times in (("engine", alone), ("metaner-label", whole)):
        print(f"{system}: {median(times):.2f} s ({', '.join(f'{time:.2f}' for time in times)})")
    print(f"metaner-label takes {median(whole) / median(alone):.3f} times as long")


if __name__ == "__main__":
    main()
