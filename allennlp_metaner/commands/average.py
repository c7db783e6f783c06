"""`allennlp metaner-average`: one archive from the weights of several checkpoints or runs."""

import argparse
from pathlib import Path
from typing import Any

from allennlp.commands.subcommand import Subcommand

from allennlp_metaner.archives import check_archive
from allennlp_metaner.atomic import check_writable
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.experiments.averaging import write_average


@Subcommand.register("metaner-average")
class Average(Subcommand):
    """
    Writes an archive with the mean of the weights of several runs, or of the last checkpoints of one or
    several ([`write_average`](../experiments/averaging.md#write_average)).

    Registered as a `Subcommand` with name "metaner-average".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        help_text = "Average the weights of checkpoints or runs."
        subparser = parser.add_parser(self.name, description=help_text, help=help_text)
        subparser.add_argument(
            "sources", nargs="+", metavar="RUN_OR_ARCHIVE", help="serialization directories, or archives"
        )
        subparser.add_argument(
            "-o",
            "--output-file",
            type=Path,
            required=True,
            help="the archive to write, such as average.tar.gz",
        )
        subparser.add_argument(
            "--last",
            type=int,
            metavar="N",
            help="average the last N checkpoints of each run, instead of its final weights",
        )
        subparser.set_defaults(func=_run)
        return subparser


@quiet()
def _run(args: argparse.Namespace) -> None:
    check_writable(args.output_file)
    for source in args.sources:
        check_archive(source)
    number = write_average([Path(source) for source in args.sources], args.output_file, args.last)
    print(f"Wrote {args.output_file}: the mean of {number} sets of weights")
