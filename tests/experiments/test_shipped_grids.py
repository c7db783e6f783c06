from collections import Counter
from pathlib import Path

import pytest

from allennlp_metaner.experiments.grid import Cell, read_grid

GRIDS = Path(__file__).parents[2] / "training_configs/experiments"


def cells(name: str) -> list[Cell]:
    return read_grid(GRIDS / f"{name}.jsonnet", Path("runs"))


def trainings(found: list[Cell]) -> set[Path]:
    return {cell.needs.folder for cell in found}


def test_small() -> None:
    found = cells("small")
    assert Counter(cell.system for cell in found) == {
        "base": 6,
        "full": 6,
        "base_adapted": 2,
        "no_max_loss": 2,
        "no_masking": 2,
        "no_max_loss_no_masking": 2,
        "random_support": 2,
    }
    assert len(trainings(found)) == 3 + 3 + 4
    for cell in found:
        config = cell.needs.config
        assert config["trainer"]["num_epochs"] * config["data_loader"]["batches_per_epoch"] == 500
        assert config["trainer"]["learning_rate_scheduler"]["warmup_steps"] == 50
        assert config["trainer"]["optimizer"]["parameter_groups"][1] == [["classifier"], {"lr": 1e-3}]
        assert cell.overrides["model.adapter.enabled"] == (cell.system != "base")
        assert config["model"]["max_loss_weight"] == (
            2.0 if cell.system in ("full", "no_masking", "random_support") else 0.0
        )


def test_paper() -> None:
    found = cells("paper")
    assert {(cell.system, cell.target) for cell in found if cell.target in ("fr", "zh")} == {
        (system, target) for system in ("base_no_misc", "full_no_misc") for target in ("fr", "zh")
    }
    assert len(found) == 5 * (7 * 3 + 2 * 2)
    assert len(trainings(found)) == 5 * (6 + 2)
    full = next(cell for cell in found if cell.system == "full").needs.config
    assert full["trainer"]["num_epochs"] * full["data_loader"]["batches_per_epoch"] == 3000


@pytest.mark.parametrize("start", ["base", "full"])
def test_low_resource(start: str) -> None:
    paper = trainings(cells("paper"))
    found = [cell for cell in cells("low_resource") if cell.system.startswith(start)]
    assert len(found) == len(trainings(found)) == 5 * 3 * 2
    for cell in found:
        assert cell.needs.needs is not None
        assert cell.needs.needs.folder in paper
        assert str(cell.needs.needs.folder) in cell.needs.config["vocabulary"]["directory"]
        assert (
            cell.needs.config["train_data_path"].rsplit("/")[-1][:2]
            == {"es": "es", "nl": "ne", "de": "de"}[cell.target]
        )
        assert cell.overrides == {}
