"""`allennlp metaner-experiment`: trains and evaluates all that a grid asks for."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allennlp.commands.subcommand import Subcommand

from allennlp_metaner.atomic import check_writable
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.experiments.exposure import sentences_shown
from allennlp_metaner.experiments.grid import read_grid
from allennlp_metaner.experiments.jobs import Job, Training
from allennlp_metaner.experiments.progress import check_files
from allennlp_metaner.experiments.runner import ExperimentRunner


@Subcommand.register("metaner-experiment")
class Experiment(Subcommand):
    """
    Trains and evaluates the systems of a grid ([`read_grid`](../experiments/grid.md)) that have no record yet
    ([`ExperimentRunner`](../experiments/runner.md)). The exit status is 1 if a job failed.

    Registered as a `Subcommand` with name "metaner-experiment". AllenNLP looks for subcommands in its
    plugins, before it reads `--include-package`: the file `.allennlp_plugins` of the working directory, or
    `~/.allennlp/plugins`, must name this package.
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        help_text = "Train and evaluate the systems of a grid."
        subparser = parser.add_parser(self.name, description=help_text, help=help_text)
        subparser.add_argument("grid", type=Path, help="path to the Jsonnet file of the grid")
        subparser.add_argument(
            "-s", "--serialization-dir", type=Path, required=True, help="folder of trainings and records"
        )
        subparser.add_argument(
            "--dry-run", action="store_true", help="only list what would be trained and evaluated"
        )
        subparser.set_defaults(func=_run)
        return subparser


@quiet()
def _run(args: argparse.Namespace) -> None:
    packages = list(dict.fromkeys(["allennlp_metaner", *args.include_package]))
    cells = read_grid(args.grid, args.serialization_dir)
    runner = ExperimentRunner(cells, args.serialization_dir, packages)
    if args.dry_run:
        _show(runner.pending())
        return
    check_writable(args.serialization_dir / "cells/record.json")
    failed = runner.run()
    print(runner.progress)
    if failed:
        folders = "".join(f"\n  {args.serialization_dir / job.folder}/" for job in failed)
        sys.exit(
            f"{len(failed)} failed; see record.json and log.txt in{folders}\nRun it again to try these again."
        )


def _show(pending: Sequence[Job]) -> None:
    """What is to be done; an error, if it cannot be, since data is missing."""
    for job in pending:
        shown = sentences_shown(job) if isinstance(job, Training) else None
        start = f", from {job.needs.folder.name}" if isinstance(job, Training) and job.needs else ""
        print(job.title + ("" if shown is None else f": {shown:,} sentences shown in all{start}"))
    trainings = sum(isinstance(job, Training) for job in pending)
    print(f"{trainings} trainings and {len(pending) - trainings} evaluations are to be done.")
    check_files(pending)
