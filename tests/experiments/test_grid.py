import json
from pathlib import Path
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.experiments.grid import read_grid
from allennlp_metaner.experiments.jobs import Cell

CONFIG = "{ lr: 1, data: std.extVar('METANER_DATA'), start: std.extVar('METANER_START'), seed: 0 }"


def grid(**changes: Any) -> dict[str, Any]:
    return {
        "seeds": [1, 2],
        "systems": {"base": {"config": "lib/config.jsonnet"}},
        "targets": {"es": {"file": "es.txt", "overrides": {"columns": 3}}, "nl": {"file": "nl.txt"}},
        **changes,
    }


def read(folder: Path, content: Any) -> list[Cell]:
    (folder / "lib").mkdir(exist_ok=True)
    (folder / "lib/config.jsonnet").write_text(CONFIG)
    (folder / "grid.jsonnet").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_grid(folder / "grid.jsonnet", folder / "runs")


def with_system(**changes: Any) -> dict[str, Any]:
    return grid(systems={"base": {"config": "lib/config.jsonnet", **changes}})


def test_cells(tmp_path: Path) -> None:
    cells = read(tmp_path, grid())
    assert [(cell.system, cell.target, cell.seed) for cell in cells] == [
        ("base", "es", 1),
        ("base", "nl", 1),
        ("base", "es", 2),
        ("base", "nl", 2),
    ]
    assert (cells[0].file, cells[0].overrides) == ("es.txt", {"columns": 3})
    config = cells[2].needs.config
    assert {config[key] for key in ("random_seed", "numpy_seed", "pytorch_seed")} == {2}


def test_what_a_system_changes(tmp_path: Path) -> None:
    systems = {
        "plain": {"config": "lib/config.jsonnet"},
        "adapted": {"config": "lib/config.jsonnet", "adapt": True, "seeds": [2, 5], "targets": ["nl"]},
        "other": {"config": "lib/config.jsonnet", "overrides": {"lr": 2}, "environment": {"METANER_DATA": 7}},
    }
    cells = read(tmp_path, grid(systems=systems, environment={"METANER_DATA": "d"}))
    by_key = {(cell.system, cell.target, cell.seed): cell for cell in cells}
    assert len(by_key) == len(cells) == 10
    adapted, other = by_key["adapted", "nl", 2], by_key["other", "nl", 2].needs
    assert adapted.overrides == {"model.adaptation.enabled": True}
    # The same config and seed is the same training.
    assert adapted.needs == by_key["plain", "nl", 2].needs
    assert adapted.hash != by_key["plain", "nl", 2].hash
    assert adapted.needs.config["data"] == "d"
    assert (other.config["lr"], other.config["data"]) == (2, "7")
    assert other.folder != adapted.needs.folder


def test_start(tmp_path: Path) -> None:
    systems = {
        "full": {"config": "lib/config.jsonnet", "targets": []},
        "tuned": {"config": "lib/config.jsonnet", "start": "full", "targets": ["es"]},
    }
    (tmp_path / "elsewhere").mkdir()
    cells, moved = read(tmp_path, grid(systems=systems)), read(tmp_path / "elsewhere", grid(systems=systems))
    start = cells[0].needs.needs
    assert start is not None
    assert cells[0].needs.config["start"] == str(tmp_path / "runs" / start.folder / "run")
    assert start.seed == cells[0].seed == 1
    assert [cell.hash for cell in cells] == [cell.hash for cell in moved]


def test_finished_runs(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"base/{seed}").mkdir(parents=True)
        (tmp_path / f"base/{seed}/config.json").write_text(json.dumps({"lr": 1, "random_seed": seed}))
    systems = {
        "base": {"run": str(tmp_path / "base/{seed}"), "last": 1},
        "tuned": {"config": "lib/config.jsonnet", "start": "base", "targets": ["es"]},
    }
    cells = read(tmp_path, grid(systems=systems))
    base, tuned = cells[2], cells[5]
    assert (base.seed, base.last) == (2, 1)
    assert base.needs.run == tmp_path / "base/2"
    assert base.needs.config == {"lr": 1, "random_seed": 2}
    assert tuned.needs.needs == base.needs
    assert tuned.needs.config["start"] == str(tmp_path / "runs" / base.needs.folder / "run")
    # Other weights of one training are another cell.
    systems["base"]["last"] = 3
    again = read(tmp_path, grid(systems=systems))[2]
    assert again.needs == base.needs and again.hash != base.hash


def test_hash_follows_the_config(tmp_path: Path) -> None:
    before = read(tmp_path, grid())[0]
    assert read(tmp_path, grid())[0] == before
    for changed in (with_system(overrides={"lr": 3}), grid(targets={"es": {"file": "es2.txt"}})):
        assert read(tmp_path, changed)[0].folder != before.folder


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (grid(seed=[1]), ["the grid", '"seed"', "seeds, environment, systems, targets"]),
        ({"systems": {}, "targets": {}}, ["seeds", "received nothing", "a list"]),
        (grid(seeds=[]), ["seeds", "[]", "at least one"]),
        (grid(seeds=[1, 1]), ["seeds", "[1, 1]", "none twice"]),
        (grid(seeds=[True]), ["seeds", "[true]", "whole number"]),
        (grid(systems={}), ["systems", "at least one"]),
        (grid(targets={"e/s": {"file": "x"}}), ["targets", '"e/s"', "letters"]),
        (grid(targets={"es": {}}), ["targets.es.file", "nothing", "a string"]),
        (grid(targets={"es": "x"}), ["targets.es", '"x"', "an object"]),
        (with_system(adapt="yes"), ["systems.base.adapt", '"yes"', "true or false"]),
        (with_system(targets=["fr"]), ["systems.base.targets", '"fr"', "es, nl"]),
        (with_system(start="base"), ["systems.base.start", '"base"', "no other"]),
        (with_system(environment={"A": 1.5}), ["systems.base.environment.A", "1.5", "a string or"]),
        (with_system(config="no.jsonnet"), ["systems.base.config", "no file", "no.jsonnet"]),
        (with_system(config="."), ["systems.base.config", "no file"]),
        (with_system(run="x"), ["systems.base", "either config or run"]),
        (grid(systems={"base": {}}), ["systems.base", "either config or run"]),
        (grid(systems={"base": {"run": "x{seed}"}}), ["systems.base.run", "no file", "x1/config.json"]),
        (grid(systems={"base": {"run": "x", "start": "y"}}), ["systems.base", '["start"]', "without these"]),
        (with_system(last=0), ["systems.base.last", "0", "1 or more"]),
        ("{ a: }", ["grid.jsonnet cannot be evaluated"]),
        ("[1]", ["the grid", "must be an object"]),
    ],
)
def test_errors(content: Any, parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(tmp_path, content)
    for part in ("grid.jsonnet", *parts):
        assert part in str(error.value)
