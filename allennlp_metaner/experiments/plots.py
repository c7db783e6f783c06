"""Pictures of a grid's results. The same results give the same file, with one version of matplotlib."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from allennlp_metaner.experiments.curves import Curve
from allennlp_metaner.experiments.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by the colour-blind, too (Okabe and Ito, 2008), without the yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# Whoever comes after the colours are used up begins again with another of these.
_MARKERS, _LINES = "osD^v", ("-", "--", ":", "-.")
_LOOKS: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
}


def plot_f1(results: Results) -> bytes:
    """
    A panel for each target, and in it a row for each system: the mean F1 over seeds with their sample
    standard deviation, and below it a small dot for each seed. The mark of a system with one seed is hollow.
    A point of F1 is equally wide in all panels.

    # Returns

    `bytes`
        SVG.
    """
    scores = {
        (system, t): list(results.f1(system, t).values())
        for system in results.systems
        for t in results.targets
    }
    systems = [system for system in results.systems if any(scores[system, t] for t in results.targets)]
    targets = [target for target in results.targets if any(scores[system, target] for system in systems)]
    with _figure(1.8 + 2.4 * len(targets), 1.2 + 0.36 * len(systems)) as (figure, file):
        panels = list(figure.subplots(1, len(targets), sharey=True, squeeze=False)[0])
        for panel, target in zip(panels, targets, strict=True):
            for row, system in enumerate(systems):
                if scores[system, target]:
                    _system(panel, row, scores[system, target], _colour(results.systems.index(system)))
            panel.set_title(target)
            panel.set_xlabel("F1 (%)")
            panel.tick_params(axis="y", length=0)
        _equally_wide(panels)
        panels[0].set_yticks(range(len(systems)), systems)
        panels[0].set_ylim(len(systems) - 0.4, -0.75)
        note = "Mean ± standard deviation over seeds; small dots: seeds; hollow: one seed"
        figure.supxlabel(note, fontsize=8, color="#666666")
    return file.getvalue()


def _system(panel: "Axes", row: int, values: Sequence[float], colour: str) -> None:
    mean, several = fmean(values), len(values) > 1
    if several:
        panel.plot(values, [row + 0.25] * len(values), ".", color=colour, markersize=3.5)
        panel.errorbar(mean, row, xerr=stdev(values), color=colour, capsize=3, linewidth=1.4)
    panel.plot(mean, row, "o", color=colour, markersize=6, markerfacecolor=colour if several else "white")
    panel.annotate(
        f"{mean:.1f}", (mean, row), (0, 5), textcoords="offset points", ha="center", va="bottom", fontsize=7
    )


def _equally_wide(panels: Sequence["Axes"]) -> None:
    limits = [panel.get_xlim() for panel in panels]
    # The marks of a single system would get a thousandth of a point, and labels stand out on both sides.
    half = max(0.5, *(0.6 * (high - low) for low, high in limits))
    for panel, (low, high) in zip(panels, limits, strict=True):
        panel.set_xlim((low + high) / 2 - half, (low + high) / 2 + half)


def plot_curves(curves: Sequence[Curve], systems: Sequence[str]) -> bytes:
    """
    F1 on dev data and training loss of every training over its updates. Trainings of one system with
    different seeds look the same, and have the system's colour in [`plot_f1`](#plot_f1).

    # Parameters

    curves : `Sequence[Curve]`
        If one's updates are not known, all are drawn over the share of the training that is done.
    systems : `Sequence[str]`
        All systems of the grid, in order.

    # Returns

    `bytes`
        SVG.
    """
    shown = [curve for curve in curves if curve.points]
    names = list(dict.fromkeys([*systems, *map(_name, shown)]))
    labels = {name: ", ".join(_systems(name, shown)) for name in names}
    rows = -(-len(set(map(_name, shown))) // 2)
    unit, scale = _scale(shown)
    with _figure(9.0, 3.4 + 0.2 * rows) as (figure, file):
        dev, loss = figure.subplots(1, 2)
        for curve in shown:
            style = _style(names.index(_name(curve)))
            # Each name is in the legend once.
            label = labels.pop(_name(curve), None)
            for panel, name, points in (
                (dev, None, curve.dev_f1),
                (loss, label, [(point.epoch, point.loss) for point in curve.points]),
            ):
                amounts = [scale(curve, epoch) for epoch, _ in points]
                panel.plot(amounts, [value for _, value in points], label=name, **style)
        dev.set_ylabel("F1 on dev data (%)")
        loss.set_ylabel("training loss")
        _scale_losses(loss, [point.loss for curve in shown for point in curve.points])
        for panel in (dev, loss):
            panel.set_xlim(left=0)
            panel.set_xlabel(unit)
        if shown:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return file.getvalue()


def _scale(curves: Sequence[Curve]) -> tuple[str, Callable[[Curve, int], float]]:
    """What to count epochs in: sentences, if all curves know theirs, or else updates."""
    if all(curve.shown(1) is not None for curve in curves):
        return "sentences shown", lambda curve, epoch: curve.shown(epoch) or 0
    if all(curve.updates_per_epoch is not None for curve in curves):
        return "updates", lambda curve, epoch: (curve.updates_per_epoch or 0) * epoch
    return "share of the training (%)", lambda curve, epoch: 100 * epoch / curve.epochs


def _scale_losses(panel: "Axes", losses: Sequence[float]) -> None:
    """Those of sums over tasks and of means over tokens are far apart."""
    from matplotlib.ticker import LogLocator

    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        panel.set_yscale("log")
        # "20", not a power of ten.
        panel.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _style(number: int) -> dict[str, Any]:
    return {
        "color": _colour(number),
        "linestyle": _LINES[number // len(COLOURS) % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4,
        "linewidth": 1.2,
        "alpha": 0.85,
    }


def _name(curve: Curve) -> str:
    """Trainings of one name are one system's."""
    return curve.systems[0] if curve.systems else curve.training.folder.name.rsplit("-", 2)[0]


def _systems(name: str, curves: Sequence[Curve]) -> list[str]:
    """All systems that use trainings of a name."""
    found = [system for curve in curves if _name(curve) == name for system in curve.systems]
    return list(dict.fromkeys([name, *found]))


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple["Figure", io.BytesIO]]:
    """A figure that is written to the file at the end."""
    # It takes a while to import, and no other part of the package needs it.
    import matplotlib
    from matplotlib.figure import Figure

    file = io.BytesIO()
    # The random parts of identifiers in the file, and the date, would make it another one every time.
    with matplotlib.rc_context({**_LOOKS, "svg.hashsalt": "metaner"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, file
        figure.savefig(file, format="svg", metadata={"Date": None})
