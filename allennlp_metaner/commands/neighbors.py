"""`allennlp metaner-neighbors`: the source sentences that a sentence to label would learn from."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import lazy_groups_of

from allennlp_metaner.atomic import check_writable, whole_file
from allennlp_metaner.commands.arguments import add_overrides
from allennlp_metaner.commands.loading import load_task_reader
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.data.characters import encodable
from allennlp_metaner.data.json_sentences import JsonSentence, read_sentences
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader

# Encoded together. So few that nothing is put into the cache on disk, which is for corpora.
_SENTENCES_PER_BATCH = 32


@Subcommand.register("metaner-neighbors")
class Neighbors(Subcommand):
    """
    Shows, for every sentence of a file, the most similar sentences of the support pool: found by the reader
    and the retriever of prediction, but without the model.

    Registered as a `Subcommand` with name "metaner-neighbors".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = (
            "Show the most similar labelled sentences of the support pool for every sentence of a file."
        )
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Show the sentences that would be retrieved as support."
        )
        subparser.add_argument(
            "archive_or_config", help="an archive, a serialization directory, or a config that was never run"
        )
        subparser.add_argument(
            "input_file", help='JSON lines, {"sentence": "raw text"} or {"words": ["a", "list"]}'
        )
        subparser.add_argument(
            "--output-file", help="write JSON lines to this file, instead of showing text on the screen"
        )
        subparser.add_argument(
            "--num-neighbors", type=int, help="how many for each sentence; if not given, what the config says"
        )
        add_overrides(subparser)
        subparser.set_defaults(func=_run)
        return subparser


def find_neighbors(reader: PseudoTaskReader, sentences: Iterable[JsonSentence]) -> Iterator[dict[str, Any]]:
    """
    # Parameters

    reader : `PseudoTaskReader`
    sentences : `Iterable[JsonSentence]`

    # Returns

    `Iterator[Dict[str, Any]]`
        For every sentence its `text`, its `words` and its `neighbors`, the most similar first, each with
        `words`, `tags` and `similarity`.
    """
    for batch in lazy_groups_of(sentences, _SENTENCES_PER_BATCH):
        tasks = reader.tasks([(sentence.words, None) for sentence in batch if sentence.words])
        for sentence in batch:
            support = next(tasks)["metadata"].metadata["support"] if sentence.words else []  # type: ignore[attr-defined]
            yield {"text": sentence.text, "words": sentence.words, "neighbors": support}


def readable(found: dict[str, Any]) -> str:
    """A result of [`find_neighbors`](#find_neighbors) as text, with the neighbours' entities in brackets."""
    neighbors = [
        f"  {neighbor['similarity']:.4f}  {_marked(neighbor['words'], neighbor['tags'])}"
        for neighbor in found["neighbors"]
    ]
    return "\n".join([found["text"], *neighbors])


def _marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """The sentence with its entities in brackets: `[Anna Novak PER] left .`"""
    marked = list(words)
    for label, first, last in spans(tags):
        marked[first] = f"[{marked[first]}"
        marked[last] = f"{marked[last]} {label}]"
    return " ".join(marked)


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    # Before the encoder is loaded, which takes longer than finding a bad line.
    output = None if arguments.output_file is None else check_writable(Path(arguments.output_file))
    sentences = list(read_sentences(arguments.input_file))
    if not sentences:
        raise ConfigurationError(f"{arguments.input_file}: no sentence found; give one a line")
    reader = load_task_reader(arguments.archive_or_config, arguments.overrides, arguments.num_neighbors)
    found = find_neighbors(reader, sentences)
    if output is None:
        for sentence in found:
            print(encodable(readable(sentence), sys.stdout.encoding or "utf-8"), end="\n\n", flush=True)
        return
    with whole_file(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for sentence in found:
            file.write(encodable(json.dumps(sentence, ensure_ascii=False), is_json=True) + "\n")
