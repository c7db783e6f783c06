"""`allennlp metaner-errors`: labels a file, and counts what kinds of errors there are."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.predictors import Predictor

from allennlp_metaner.analysis.errors import LabelledSentence, analyse, as_markdown
from allennlp_metaner.commands.labelling import label_file
from allennlp_metaner.commands.loading import load_checked, task_reader
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
        subparser.add_argument("archive_file", help="an archive or a serialization directory")
        subparser.add_argument(
            "data_file", help="a labelled file, for the config's validation_dataset_reader"
        )
        subparser.add_argument(
            "--output-directory",
            help="where errors.json and errors.md are written; the screen shows the latter",
        )
        subparser.add_argument("--weights-file", help="overrides the weights of the archive")
        subparser.add_argument("--cuda-device", type=int, default=-1, help="id of the GPU to use, if any")
        subparser.add_argument(
            "-o",
            "--overrides",
            default="",
            help="a json(net) structure that overrides settings of the config; without adaptation: "
            "'{\"model.adaptation.enabled\": false}'",
        )
        subparser.set_defaults(func=_run)
        return subparser


def label(predictor: Predictor, reader: PseudoTaskReader, data_file: str) -> Iterator[LabelledSentence]:
    """
    # Parameters

    predictor : `Predictor`
        Its output has `tags`.
    reader : `PseudoTaskReader`
    data_file : `str`

    # Returns

    `Iterator[LabelledSentence]`
        The sentences of `data_file`, in order.

    # Raises

    `ConfigurationError`, if a sentence has no gold tags.
    """
    for words, gold, output in label_file(predictor, reader, data_file):
        if gold is None:
            raise ConfigurationError(
                f"{data_file}: the sentence {' '.join(words)!r} has no tags, so errors cannot be told"
            )
        yield LabelledSentence(words, gold, output["tags"])


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    check_for_gpu(arguments.cuda_device)
    archive = load_checked(
        arguments.archive_file, arguments.cuda_device, arguments.overrides, arguments.weights_file
    )
    reader = task_reader(archive.validation_dataset_reader, arguments.archive_file)
    # Before the file is read, which would be the pool of a reader that has none of its own.
    source = zip(reader.pool.sentences, reader.pool.tags, strict=True)
    tables = analyse(label(Predictor.from_archive(archive, "adapting"), reader, arguments.data_file), source)
    print(as_markdown(tables), end="")
    if arguments.output_directory is not None:
        directory = Path(arguments.output_directory)
        directory.mkdir(parents=True, exist_ok=True)
        counts = {
            table: {row: counts.as_dict() for row, counts in rows.items()} for table, rows in tables.items()
        }
        (directory / "errors.json").write_text(json.dumps(counts, indent=2) + "\n", "utf-8")
        (directory / "errors.md").write_text(as_markdown(tables), "utf-8")
