import json
from pathlib import Path
from typing import Any

import pytest

from allennlp_metaner.experiments.curves import Curve, Point, read_curves
from allennlp_metaner.experiments.jobs import Training
from allennlp_metaner.experiments.plots import plot_curves


def test_points(made_up_experiment: Any) -> None:
    cells = made_up_experiment.cells()
    # More than ten: the names are not in the order of the numbers.
    folder = made_up_experiment.train(cells[0], [number / 128 for number in range(12)])
    (folder / "run/metrics_epoch_11.json").write_text('{"half')
    (folder / "run/metrics_epoch_10.json").write_text("{}")
    curves = read_curves(cells, made_up_experiment.runs)
    assert [(curve.systems, curve.training.seed) for curve in curves] == [
        (["base"], 1),
        (["base"], 2),
        (["full"], 1),
        (["full"], 2),
        (["no_masking"], 1),
    ]
    assert curves[0].points == [
        Point(number + 1, 100 * number / 128, 3 - number / 128) for number in range(10)
    ]
    assert curves[0].record and curves[0].record["status"] == "finished"
    assert (curves[0].best, curves[0].epochs, curves[0].updates_per_epoch) == (100 * 9 / 128, 2, 50)
    assert (curves[1].points, curves[1].record, curves[1].best) == ([], None, None)


def test_training_without_dev_data(made_up_experiment: Any) -> None:
    """As of low resource: what was trained is known, and there is nothing to draw on one side."""
    cells = made_up_experiment.cells()
    folder = made_up_experiment.train(cells[0], [])
    for epoch in range(2):
        (folder / f"run/metrics_epoch_{epoch}.json").write_text('{"training_loss": 1.5}')
    curve = read_curves(cells, made_up_experiment.runs)[0]
    assert curve.points == [Point(1, None, 1.5), Point(2, None, 1.5)]
    assert (curve.best, curve.dev_f1) == (None, [])
    assert plot_curves([curve], ["base"]).startswith(b"<?xml")


def test_shared_trainings_and_starts(made_up_experiment: Any) -> None:
    grid = made_up_experiment.contents
    systems = {
        "base": grid["systems"]["base"],
        "adapted": {"config": "base.jsonnet", "adapt": True},
        "tuned": {"config": "no_masking.jsonnet", "start": "hidden"},
        "hidden": {"config": "full.jsonnet", "targets": []},
    }
    made_up_experiment.write_grid({**grid, "seeds": [1], "systems": systems})
    curves = read_curves(made_up_experiment.cells(), made_up_experiment.runs)
    assert [(Path(curve.training.source).stem, curve.systems) for curve in curves] == [
        ("base", ["adapted", "base"]),
        ("full", []),
        ("no_masking", ["tuned"]),
    ]


@pytest.mark.parametrize(
    ("loader", "trainer", "expected"),
    [
        ({}, {}, None),
        ({"batches_per_epoch": 7}, {}, 7),
        ({"batches_per_epoch": 7}, {"num_gradient_accumulation_steps": 2}, 4),
    ],
)
def test_updates(loader: dict[str, int], trainer: dict[str, int], expected: int) -> None:
    config = {"data_loader": loader, "trainer": {"num_epochs": 2, **trainer}}
    training = Training(config, json.dumps(config), "x.jsonnet", 1, {})
    assert Curve(training, [], None, []).updates_per_epoch == expected
