from collections import Counter
from pathlib import Path

import pytest

from allennlp_metaner.experiments import grid
from allennlp_metaner.experiments.grid import Cell, read_grid

GRIDS = Path(__file__).parents[2] / "training_configs/experiments"


@pytest.fixture(autouse=True)
def first_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluating the configs for every seed takes long, and shows nothing new."""
    checked = grid._Grid._checked_seeds
    monkeypatch.setattr(grid._Grid, "_checked_seeds", lambda *arguments: checked(*arguments)[:1])


def cells(name: str) -> list[Cell]:
    return read_grid(GRIDS / f"{name}.jsonnet", Path("runs"))


def trainings(found: list[Cell]) -> set[Path]:
    return {cell.needs.folder for cell in found}


def test_small() -> None:
    found = cells("small")
    more = {
        *("base_24", "base_adapted", "full_unadapted"),
        *("no_max_loss", "no_masking", "no_max_loss_no_masking", "random_support"),
    }
    assert Counter(cell.system for cell in found) == dict.fromkeys({"base", "full", *more}, 2)
    assert len(trainings(found)) == 7
    for cell in found:
        config = cell.needs.config
        assert config["trainer"]["num_epochs"] * config["data_loader"]["batches_per_epoch"] == 500
        assert config["trainer"]["learning_rate_scheduler"]["warmup_steps"] == 50
        assert config["trainer"]["optimizer"]["parameter_groups"][1] == [["classifier"], {"lr": 1e-3}]
        unadapted = ("base", "base_24", "full_unadapted")
        assert cell.overrides["model.adapter.enabled"] == (cell.system not in unadapted)
        with_max_loss = cell.system in ("full", "full_unadapted", "no_masking", "random_support")
        assert config["model"]["max_loss_weight"] == (2.0 if with_max_loss else 0.0)


def test_search() -> None:
    """As many learning rates for base as for full, on English dev, and the best ones are those of `small`."""
    found = cells("small_search")
    assert all(cell.file.endswith("eng.testa") and cell.target == "en" for cell in found)
    assert not any(cell.overrides["model.adapter.enabled"] for cell in found)
    rates: dict[str, set[float]] = {"base": set(), "full": set()}
    for cell in found:
        rates[cell.system.split("_")[0]].add(cell.needs.config["trainer"]["optimizer"]["lr"])
    assert rates["base"] == rates["full"] and len(rates["base"]) == 3
    chosen = {cell.needs.folder for cell in cells("small") if cell.system in ("base", "full")}
    assert chosen < trainings(found)


def test_small_adaptation() -> None:
    """One model of `small`, adapted in several ways on English dev."""
    found = cells("small_adaptation")
    assert len(found) == 4
    full = next(cell for cell in cells("small") if cell.system == "full")
    assert trainings(found) == {full.needs.folder}
    settings = set()
    for cell in found:
        assert cell.file.endswith("eng.testa")
        assert cell.overrides["model.adapter.enabled"]
        settings.add(
            tuple(cell.overrides[f"model.adapter.inner_loop.{key}"] for key in ("dtype", "optimizer.lr"))
        )
    assert settings == {("float32", 1e-5), ("float32", 1e-4), ("float32", 3e-4), ("bfloat16", 1e-5)}


def test_small_low_resource() -> None:
    found = cells("small_low_resource")
    assert len(found) == len(trainings(found)) == 2 * 2 * 2
    small = {cell.system: cell.needs.folder for cell in cells("small")}
    for cell in found:
        start, target, percent = cell.system.split("_")
        assert cell.needs.needs is not None
        assert cell.needs.needs.folder == small[start]
        assert cell.target == target
        assert cell.needs.config["dataset_reader"]["fraction"] == int(percent) / 100
        assert cell.needs.config["data_loader"]["batch_sampler"]["batch_size"] == 32
        assert cell.needs.config["trainer"]["optimizer"]["parameter_groups"][1][1] == {"lr": 1e-3 / 3}


def test_paper_and_low_resource() -> None:
    paper, low_resource = cells("paper"), cells("low_resource")
    assert len(paper) == 8 * 3 + 2 * 2
    assert len(trainings(paper)) == 6 + 2
    assert {(cell.system, cell.target) for cell in paper if cell.target in ("fr", "zh")} == {
        (system, target) for system in ("base_no_misc", "full_no_misc") for target in ("fr", "zh")
    }
    full = next(cell for cell in paper if cell.system == "full").needs.config
    assert full["trainer"]["num_epochs"] * full["data_loader"]["batches_per_epoch"] == 3000

    assert len(low_resource) == len(trainings(low_resource)) == 2 * 3 * 2
    files = {"es": "esp.train", "nl": "ned.train", "de": "deu.train"}
    for cell in low_resource:
        start = cell.needs.needs
        assert start is not None
        # What paper.jsonnet trains.
        assert start.folder in trainings(paper)
        assert str(start.folder) in cell.needs.config["vocabulary"]["directory"]
        assert cell.needs.config["train_data_path"].endswith(files[cell.target])
        assert cell.overrides == {}
