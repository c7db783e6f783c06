"""`allennlp metaner-errors`: labels a file, and counts what kinds of errors there are."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.predictors import Predictor

from allennlp_metaner.analysis.errors import LEGEND, LabelledSentence, Tables, analyse, as_markdown
from allennlp_metaner.analysis.reliability import ScoredSentence, reliability
from allennlp_metaner.archives import load_archive
from allennlp_metaner.atomic import check_writable, write_json, write_whole
from allennlp_metaner.commands.arguments import add_archive, add_cuda_device, add_overrides, add_weights_file
from allennlp_metaner.commands.label_file import label_file
from allennlp_metaner.commands.loading import task_reader
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader


@Subcommand.register("metaner-errors")
class Errors(Subcommand):
    """
    Labels a file as the predictor "adapting" does, with adaptation if the archive's model says so, and counts
    the errors by the rules of [`analyse`](../analysis/errors.md#analyse). The archive's support pool is the
    source data in which entities were seen or not.

    Registered as a `Subcommand` with name "metaner-errors".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = (
            "Label a file, and count missed and spurious entities and those of wrong type or boundary: by "
            "type, by whether the source data has them, and by sentence length."
        )
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Label a file and count the kinds of errors."
        )
        add_archive(subparser)
        subparser.add_argument(
            "data_file", help="a labelled file, for the config's validation_dataset_reader"
        )
        subparser.add_argument(
            "--output-directory",
            help="where errors.json and errors.md are written; the screen shows the latter",
        )
        subparser.add_argument(
            "--reliability",
            action="store_true",
            help="also show how precise entities are by their confidence, and what a threshold would leave "
            "(reliability.json, reliability.md)",
        )
        add_weights_file(subparser)
        add_cuda_device(subparser)
        add_overrides(
            subparser,
            "settings of the config; without adaptation: '{\"model.adaptation.enabled\": false}'",
        )
        subparser.set_defaults(func=_run)
        return subparser


def label(
    predictor: Predictor, reader: PseudoTaskReader, data_file: str
) -> Iterator[tuple[LabelledSentence, list[float]]]:
    """
    # Parameters

    predictor : `Predictor`
        Its output has `tags` and `entities`.
    reader : `PseudoTaskReader`
    data_file : `str`

    # Returns

    `Iterator[tuple[LabelledSentence, list[float]]]`
        The sentences of `data_file`, in order, with the confidences of their entities.

    # Raises

    `ConfigurationError`, if a sentence has no gold tags.
    """
    for words, gold, output in label_file(predictor, reader, data_file):
        if gold is None:
            raise ConfigurationError(
                f"{data_file}: the sentence {' '.join(words)!r} has no tags, so errors cannot be told"
            )
        confidences = [entity["confidence"] for entity in output["entities"]]
        yield LabelledSentence(words, gold, output["tags"]), confidences


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    check_for_gpu(arguments.cuda_device)
    if arguments.output_directory is not None:
        check_writable(Path(arguments.output_directory) / "errors.json")
    archive = load_archive(
        arguments.archive_file, arguments.cuda_device, arguments.overrides, arguments.weights_file
    )
    reader = task_reader(archive.validation_dataset_reader, arguments.archive_file)
    # Before the file is read, which would be the pool of a reader that has none of its own.
    source = zip(reader.pool.sentences, reader.pool.tags, strict=True)
    labelled = list(label(Predictor.from_archive(archive, "adapting"), reader, arguments.data_file))
    tables = analyse((sentence for sentence, _ in labelled), source)
    _report("errors", _counts(tables), f"{as_markdown(tables)}\n{LEGEND}", arguments.output_directory)
    if arguments.reliability:
        found = reliability(
            ScoredSentence(sentence.gold, sentence.predicted, confidences)
            for sentence, confidences in labelled
        )
        print()
        _report("reliability", found.as_dict(), found.as_markdown(), arguments.output_directory)


def _counts(tables: Tables) -> dict[str, Any]:
    return {table: {row: counts.as_dict() for row, counts in rows.items()} for table, rows in tables.items()}


def _report(name: str, content: dict[str, Any], markdown: str, directory: Optional[str]) -> None:
    print(markdown, end="", flush=True)
    if directory is not None:
        folder = Path(directory)
        write_json(folder / f"{name}.json", content)
        write_whole(folder / f"{name}.md", markdown.encode())
