"""
Sentences a second of an adapted teacher, of a student and of its exports, in turns on one machine:

    python benchmarks/student.py --teacher runs/base/13370 --student runs/student/es/13370 --export export/ \
        --text esp.jsonl -o "$OVERRIDES"

`--text` has JSON lines with `words` or `sentence`. `--overrides` are the teacher's, such as an inner loop.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from allennlp_metaner import NameTagger
from allennlp_metaner.data.json_sentences import read_sentences
from allennlp_metaner.tagging.exported_tagger import RUNTIMES


def main() -> None:
    """Measure, and print a line for each system, with its ratio to the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--teacher", required=True, help="an archive that adapts")
    parser.add_argument("--student", required=True, help="an archive that does not")
    parser.add_argument("--export", nargs="*", default=[], help="folders of metaner-export --onnx")
    parser.add_argument("--text", required=True, help="JSON lines")
    parser.add_argument("--sentences", type=int, default=256, help="of the text's first ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--overrides", default="", help="of the teacher's config")
    arguments = parser.parse_args()

    words = [sentence.words for sentence in read_sentences(arguments.text)][: arguments.sentences]
    taggers = {
        "teacher, adapted": NameTagger.load(arguments.teacher, adapt=True, overrides=arguments.overrides),
        "teacher": NameTagger.load(arguments.teacher, adapt=False, overrides=arguments.overrides),
        "student": NameTagger.load(arguments.student, adapt=False),
        **{
            f"{folder} by {runtime}": NameTagger.load(folder, runtime=runtime)
            for folder in arguments.export
            for runtime in RUNTIMES
        },
    }
    rates = measured({name: tagger.predict for name, tagger in taggers.items()}, words, arguments.rounds)
    slowest = statistics.median(rates["teacher, adapted"])
    print(f"{len(words)} sentences, {arguments.rounds} rounds, {torch.get_num_threads()} threads")
    for name, of_system in rates.items():
        median = statistics.median(of_system)
        rounds = ", ".join(f"{rate:.1f}" for rate in of_system)
        print(
            f"{name}: {median:.1f} sentences/s ({rounds}), {median / slowest:.1f} times the adapted teacher"
        )
    print(json.dumps(rates))


def measured(
    predict: dict[str, Callable[[Sequence[list[str]]], object]], words: Sequence[list[str]], rounds: int
) -> dict[str, list[float]]:
    """Sentences a second of each system and round, after a first round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in predict}
    for number in range(rounds + 1):
        for name, function in predict.items():
            start = time.perf_counter()
            function(words if number else words[:32])
            if number:
                rates[name].append(len(words) / (time.perf_counter() - start))
    return rates


if __name__ == "__main__":
    main()
