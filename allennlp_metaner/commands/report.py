"""`allennlp metaner-report`: tables, tests and pictures of what an experiment has measured."""

import argparse
from pathlib import Path
from typing import Any

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.atomic import check_writable, write_whole
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.experiments.comparisons import compare, pairs
from allennlp_metaner.experiments.curves import read_curves
from allennlp_metaner.experiments.grid import read_grid
from allennlp_metaner.experiments.plots import plot_curves, plot_f1
from allennlp_metaner.experiments.report import as_csv, as_markdown
from allennlp_metaner.experiments.results import Results


@Subcommand.register("metaner-report")
class Report(Subcommand):
    """
    Reports what [`metaner-experiment`](./experiment.md) has measured so far, from the records in its folder:
    `report.md`, `report.csv`, `f1.svg` and `curves.svg`. Whether a difference is more than chance is said by
    a [paired bootstrap](../analysis/bootstrap.md#paired_bootstrap).

    Registered as a `Subcommand` with name "metaner-report".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        help_text = "Report what the systems of a grid have reached so far."
        subparser = parser.add_parser(self.name, description=help_text, help=help_text)
        subparser.add_argument("grid", type=Path, help="path to the Jsonnet file of the grid")
        subparser.add_argument(
            "-s", "--serialization-dir", type=Path, required=True, help="folder of trainings and records"
        )
        subparser.add_argument(
            "-o", "--output-dir", type=Path, required=True, help="where the report is written"
        )
        subparser.add_argument(
            "--compare",
            nargs=2,
            action="append",
            default=[],
            metavar=("SYSTEM_A", "SYSTEM_B"),
            help="test the difference of two systems, too, not only that of each to its base model (base_x "
            "of full_x, or else the grid's first one); may be repeated",
        )
        subparser.set_defaults(func=_run)
        return subparser


@quiet()
def _run(args: argparse.Namespace) -> None:
    folder: Path = args.serialization_dir
    check_writable(args.output_dir / "report.md")
    results = Results(read_grid(args.grid, folder), folder)
    wanted = pairs(results, args.compare)
    if not results.finished:
        raise ConfigurationError(
            f"{folder}: no cell of {args.grid} is finished{_others(folder)}. Run `allennlp "
            f"metaner-experiment {args.grid} -s {folder}` first, and the report with the same environment "
            "variables: METANER_DATA, METANER_ENCODER and the like are part of the configs"
        )
    curves = read_curves(results.cells, folder)
    files = {
        "report.md": as_markdown(results, curves, *compare(results, wanted)).encode(),
        "report.csv": as_csv(results).encode(),
        "f1.svg": plot_f1(results),
        "curves.svg": plot_curves(curves, results.systems),
    }
    for name, content in files.items():
        write_whole(args.output_dir / name, content)
    print(f"{len(results.finished)} of {len(results.cells)} cells: wrote {args.output_dir / 'report.md'}")


def _others(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.glob("cells/*/record.json"))
    return f", but others are, or failed, such as {found[0]}" if found else ""
