"""The results of a grid as a Markdown text, and as a CSV file."""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import fmean, stdev
from typing import Optional

from allennlp_metaner.analysis.bootstrap import CONFIDENCE, RESAMPLES
from allennlp_metaner.analysis.markdown import markdown_table
from allennlp_metaner.experiments import paper
from allennlp_metaner.experiments.comparisons import Compared, Pair
from allennlp_metaner.experiments.curves import Curve
from allennlp_metaner.experiments.grid import Cell
from allennlp_metaner.experiments.records import FINISHED
from allennlp_metaner.experiments.results import OVERALL, Results, status

_NOTHING = "-"
_SHOWN = "sentences shown"

_F1 = """\
Phrase-level F1 on the targets' files in per cent: mean ± sample standard deviation over seeds (number of
seeds). The average over targets is made for each seed, and left out where a target has no result.
"Sentences shown" are those of the training and of what it started from; a task shows its query and its
support set, or the query alone if the training does not use the support set."""
_COMPARISONS = f"""\
Each system is compared with plain training on as many sentences, where there is such a system. The difference
in points of the mean F1 over seeds, first system minus second, is tested by a paired bootstrap of
{RESAMPLES:,} resamples. Where the systems have seeds in common, only these count, so the difference may not
be that of the table above. A resample draws sentences of the file with replacement, the same ones for both
systems, and seeds with replacement: the common ones in pairs ("pairs"), or, if there are none, each system's
own ("apart"). **Of a system with one seed, only sentences are resampled**: nothing is said of how it would be
with other seeds. Few seeds, too, show less spread than there is.

The interval holds the middle {CONFIDENCE:.0%} of the resampled differences. p is two-sided: the share of
resamples whose difference is at least as far from the measured one as the measured one is from zero
(Berg-Kirkpatrick et al., 2012), with one added to both counts. It is not corrected for the number of
comparisons."""
_PAPER = """\
The paper's figures are means of five runs. "vs. base" is the difference to the base model on that target,
over the seeds that both have."""
_AVERAGES = """\
The paper averages over es, nl, de, fr and zh. Here, a row has the targets for which there are results of both
the system and the base model."""


def as_markdown(
    results: Results, curves: Sequence[Curve], compared: Sequence[Compared], not_compared: Sequence[Pair]
) -> str:
    """
    # Parameters

    results : `Results`
    curves : `Sequence[Curve]`
        Of all trainings.
    compared : `Sequence[Compared]`
    not_compared : `Sequence[Pair]`
        Those that lack results.

    # Returns

    `str`
        It shows the pictures `f1.svg` and `curves.svg`, which should be beside it.
    """
    parts = [
        f"# Report\n\n{len(results.finished)} of {len(results.cells)} cells are finished.",
        *_missing(results),
        f"## F1\n\n{_F1}",
        *_f1_tables(results),
        "![F1 by system and target](f1.svg)",
        "## F1 by type",
        *_type_tables(results),
        *_comparisons(results, compared, not_compared),
        "## Compared with the paper",
        *(_paper(results) or ["No figures of the paper are known here for these systems and targets."]),
        "## Trainings",
        _trainings(curves),
        "![F1 on dev data and training loss](curves.svg)",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def as_csv(results: Results) -> str:
    """
    A line for every finished cell and type, and one for all types ("overall"): precision, recall and F1 in
    per cent, and the seconds that the evaluation took.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("system", "target", "seed", "type", "precision", "recall", "f1"),
            *("seconds", "device", "training", "cell", "sentences_shown"),
        ]
    )
    for result in results.finished:
        cell, record = result.cell, result.record
        for type_, scores in result.scores.items():
            writer.writerow(
                [
                    *(cell.system, cell.target, cell.seed, type_, *(f"{score:.4f}" for score in scores)),
                    *(record.get("seconds"), record.get("device")),
                    *(cell.needs.folder.name, cell.folder.name, results.shown[cell.system]),
                ]
            )
    return text.getvalue()


def _missing(results: Results) -> list[str]:
    if not results.missing:
        return []

    def key(entry: tuple[Cell, str]) -> tuple[str, str, str]:
        cell, why = entry
        return cell.system, cell.target, why

    rows = []
    for (system, target, why), entries in groupby(sorted(results.missing, key=key), key):
        rows.append([system, target, ", ".join(str(cell.seed) for cell, _ in entries), why])
    table = markdown_table(["system", "target", "seeds", "why"], rows, left=4)
    return [f"## Missing\n\nThese cells have no result, and do not count below.\n\n{table}"]


def _f1_tables(results: Results) -> list[str]:
    # Averages over different targets must not stand in one column.
    groups: dict[tuple[str, ...], list[str]] = {}
    for system in results.systems:
        groups.setdefault(results.targets_of(system), []).append(system)
    tables = []
    for targets, systems in groups.items():
        average = len(targets) > 1
        rows = []
        for system in systems:
            by_target = [results.f1(system, target) for target in targets]
            row = [system, *(_mean(by_seed.values()) for by_seed in by_target)]
            if average:
                seeds = sorted(set.intersection(*(set(by_seed) for by_seed in by_target)))
                row.append(_mean([fmean(by_seed[seed] for by_seed in by_target) for seed in seeds]))
            rows.append([*row, _shown(results, system)])
        tables.append(markdown_table(["system", *targets, *["average"] * average, _SHOWN], rows))
    return tables


def _type_tables(results: Results) -> list[str]:
    tables = []
    for target in results.targets:
        systems = [system for system in results.systems if results.of(system, target)]
        found = [result for system in systems for result in results.of(system, target)]
        types = sorted({type_ for result in found for type_ in result.scores} - {OVERALL})
        rows = []
        for system in systems:
            means = (_mean(results.f1(system, target, type_).values()) for type_ in types)
            rows.append([system, *means, _shown(results, system)])
        if rows:
            tables.append(markdown_table([target, *types, _SHOWN], rows))
    return tables


def _comparisons(results: Results, compared: Sequence[Compared], not_compared: Sequence[Pair]) -> list[str]:
    if not compared and not not_compared:
        return []
    columns = [
        "target",
        "systems",
        "difference",
        f"{CONFIDENCE:.0%} interval",
        "p",
        "sentences",
        "seeds",
        _SHOWN,
    ]
    parts = ["## Comparisons", _COMPARISONS]
    if compared:
        rows = [[*_compared(found), _shown(results, *found.pair[1:])] for found in compared]
        parts.append(markdown_table(columns, rows, left=2))
    if not_compared:
        names = "; ".join(f"{pair.first} - {pair.second} on {pair.target}" for pair in not_compared)
        parts.append(f"Not compared, for lack of finished cells with predictions: {names}.")
    return parts


def _shown(results: Results, *systems: str) -> str:
    """The sentences that the systems' trainings showed, once if they are as many."""
    return " and ".join(dict.fromkeys(_number(results.shown[system]) for system in systems))


def _compared(found: Compared) -> list[str]:
    outcome = found.outcome
    ours, theirs = len(found.first_seeds), len(found.second_seeds)
    seeds = f"{ours} pairs" if found.seeds_paired else f"{ours} and {theirs} apart"
    return [
        found.pair.target,
        f"{found.pair.first} - {found.pair.second}",
        f"{100 * outcome.difference:+.2f}",
        f"{100 * outcome.low:+.2f} to {100 * outcome.high:+.2f}",
        f"{outcome.p_value:.4f}",
        f"{found.num_sentences:,}",
        "1 each" if ours == theirs == 1 else seeds,
    ]


def _paper(results: Results) -> list[str]:
    rows, averages = [], []
    for target in results.targets:
        for system in results.systems:
            theirs = paper.f1(system, target)
            if theirs is not None and results.of(system, target):
                ours = _value(results, system, target)
                gain = None if paper.is_base(system) else _gain(results, system, target)
                their_gain = None if paper.is_base(system) else paper.gain(system, target)
                rows.append([target, system, f"{ours:.2f}", f"{theirs:.2f}", _signed(ours - theirs)])
                rows[-1] += [_signed(gain), _signed(their_gain), _shown(results, system)]
    for family in dict.fromkeys(map(paper.family, results.systems)):
        theirs = paper.average(family)
        pairs = _with_base(results, family)
        if theirs is not None and pairs:
            ours, gain = (fmean(values) for values in zip(*pairs.values(), strict=True))
            gains = gain, paper.average_gain(family)
            row = [family, ", ".join(pairs), f"{ours:.2f}", f"{theirs:.2f}"]
            averages.append(row + [_signed(None if paper.is_base(family) else each) for each in gains])
    parts = [_PAPER] if rows or averages else []
    if rows:
        columns = ["target", "system", "F1", "paper", "difference", "vs. base", "paper's vs. base", _SHOWN]
        parts.append(markdown_table(columns, rows, left=2))
    if averages:
        columns = ["system", "targets", "average", "paper", "vs. base", "paper's vs. base"]
        parts += [_AVERAGES, markdown_table(columns, averages, left=2)]
    return parts


def _with_base(results: Results, family: str) -> dict[str, tuple[float, float]]:
    """By target the F1 of a system of that name in the paper, and what it gains over the base model."""
    found = {}
    for target in results.targets:
        for system in results.systems:
            gain = _gain(results, system, target)
            if paper.family(system) == family and gain is not None:
                found[target] = _value(results, system, target), gain
    return found


def _gain(results: Results, system: str, target: str) -> Optional[float]:
    """
    What a system gains in F1 over the base model that was trained for the same types, on average over their
    common seeds, if there are any.
    """
    own = results.f1(system, target)
    base = results.f1(paper.base_of(system), target)
    if not own or not base:
        return None
    seeds = own.keys() & base.keys()
    return fmean([own[n] for n in seeds] or own.values()) - fmean([base[n] for n in seeds] or base.values())


def _value(results: Results, system: str, target: str) -> float:
    return fmean(results.f1(system, target).values())


def _trainings(curves: Sequence[Curve]) -> str:
    rows = []
    for curve in curves:
        record = curve.record or {}
        done = record.get("status") == FINISHED
        epochs = curve.points[-1].epoch if curve.points else 0
        updates = f"{epochs} epochs"
        if curve.updates_per_epoch is not None:
            updates = f"{epochs * curve.updates_per_epoch:,}"
        minutes = f"{record['seconds'] / 60:.1f}" if done and "seconds" in record else _NOTHING
        # A record has the time of the last attempt.
        minutes = f"> {minutes}" if record.get("recovered") else minutes
        best = _NOTHING if curve.best is None else f"{curve.best:.2f}"
        rows.append(
            [
                *(curve.training.folder.name, ", ".join(curve.systems) or "a start for others"),
                *(status(curve.record), str(curve.training.seed), updates, _number(curve.shown(epochs))),
                *(minutes, str(record.get("device", _NOTHING)), best),
            ]
        )
    note = "Minutes after `>`: the training was interrupted, and this is the last attempt alone.\n\n"
    columns = ["training", "systems", "status", "seed", "updates", _SHOWN, "minutes", "device", "best dev F1"]
    table = markdown_table(columns, rows, left=3)
    return note + table if "> " in table else table


def _mean(values: Iterable[float]) -> str:
    numbers = list(values)
    if not numbers:
        return _NOTHING
    spread = f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.2f}{spread} ({len(numbers)})"


def _number(value: Optional[int]) -> str:
    return _NOTHING if value is None else f"{value:,}"


def _signed(value: Optional[float]) -> str:
    return _NOTHING if value is None else f"{value:+.2f}"
