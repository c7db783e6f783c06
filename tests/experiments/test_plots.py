"""That nothing is left out and the files are always the same; how they look was looked at."""

import re
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from matplotlib.axes import Axes

from allennlp_metaner.experiments.curves import read_curves
from allennlp_metaner.experiments.plots import plot_curves, plot_f1
from allennlp_metaner.experiments.results import Results

PACKAGE = Path(__file__).parents[2] / "allennlp_metaner"


def texts(picture: bytes) -> list[str]:
    """Letters are drawn, but matplotlib leaves a comment with each text."""
    return re.findall(r"<!-- (.*?) -->", picture.decode())


def test_f1(made_up_experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error_bars: list[float] = []
    draw = Axes.errorbar

    def noted(self: Axes, *args: Any, xerr: float, **kwargs: Any) -> Any:
        error_bars.append(xerr)
        return draw(self, *args, xerr=xerr, **kwargs)

    monkeypatch.setattr(Axes, "errorbar", noted)
    for cell in made_up_experiment.cells("base") + made_up_experiment.cells("full", "es"):
        made_up_experiment.finish(cell, 3 if cell.system == "base" else 9)
    results = Results(made_up_experiment.cells(), made_up_experiment.runs)
    picture = plot_f1(results)
    mean = sum(results.f1("full", "es").values()) / 2
    assert {"es", "nl", "base", "full", f"{mean:.1f}"} <= set(texts(picture))
    assert "no_masking" not in texts(picture)
    expected = {stdev(results.f1(*key).values()) for key in (("base", "es"), ("base", "nl"), ("full", "es"))}
    assert set(error_bars) == expected
    assert picture == plot_f1(Results(made_up_experiment.cells(), made_up_experiment.runs))


def test_a_single_cell(made_up_experiment: Any) -> None:
    made_up_experiment.finish(made_up_experiment.cells()[0], 3)
    assert "nl" not in texts(plot_f1(Results(made_up_experiment.cells(), made_up_experiment.runs)))


def test_curves(made_up_experiment: Any) -> None:
    cells = made_up_experiment.cells()
    for cell in cells:
        if cell.system != "no_masking":
            made_up_experiment.train(cell, [0.5, 0.7])
    curves = read_curves(cells, made_up_experiment.runs)
    picture = plot_curves(curves, ["base", "full", "no_masking"])
    found = texts(picture)
    assert {"updates", "100", "F1 on dev data (%)", "training loss"} <= set(found)
    # Two seeds are one line of the legend.
    assert [found.count(name) for name in ("base", "full", "no_masking")] == [1, 1, 0]
    assert picture == plot_curves(curves, ["base", "full", "no_masking"])


def test_curves_with_unknown_updates(made_up_experiment: Any) -> None:
    (made_up_experiment.grid.parent / "base.jsonnet").write_text(
        '{"trainer": {"num_epochs": 5}, "data_loader": {}}'
    )
    cells = made_up_experiment.cells()
    for cell in (cells[0], cells[-1]):
        made_up_experiment.train(cell, [0.5, 0.7])
    found = texts(plot_curves(read_curves(cells, made_up_experiment.runs), []))
    assert "share of the training (%)" in found and "updates" not in found


def test_losses_that_are_far_apart(made_up_experiment: Any) -> None:
    cells = made_up_experiment.cells()
    made_up_experiment.train(cells[0], [0.5, 2.99])
    assert "0.02" in texts(plot_curves(read_curves(cells, made_up_experiment.runs), []))


def test_no_curves(made_up_experiment: Any) -> None:
    curves = read_curves(made_up_experiment.cells(), made_up_experiment.runs)
    assert plot_curves(curves, ["base"]).startswith(b"<?xml")


def test_matplotlib_is_imported_when_needed() -> None:
    """Importing it takes long, and importing this package imports all of its modules."""
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"^(import|from) matplotlib", path.read_text("utf-8"), re.MULTILINE), path
