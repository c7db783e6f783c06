import json
import os
from collections import Counter
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from allennlp_metaner.experiments import grid
from allennlp_metaner.experiments.grid import read_grid
from allennlp_metaner.experiments.jobs import Cell

GRIDS = Path(__file__).parents[2] / "training_configs/experiments"
EVALUATE = grid._evaluate


@cache
def _evaluated(path: Path, environment: str, variables: str) -> dict[str, Any]:
    return EVALUATE(path, json.loads(environment), "here")


@pytest.fixture(autouse=True)
def fewer_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Evaluating the configs for every seed takes long, and shows nothing new; many grids have the same ones.
    """

    def evaluate(path: Path, environment: dict[str, str], where: str) -> dict[str, Any]:
        variables = json.dumps({name: os.environ[name] for name in os.environ if name.startswith("METANER_")})
        return deepcopy(_evaluated(path, json.dumps(environment), variables))

    monkeypatch.setattr(grid, "_evaluate", evaluate)
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
        assert cell.overrides["model.adaptation.enabled"] == (cell.system not in unadapted)
        with_max_loss = cell.system in ("full", "full_unadapted", "no_masking", "random_support")
        assert config["model"]["max_loss_weight"] == (2.0 if with_max_loss else 0.0)


def test_search() -> None:
    """As many learning rates for base as for full, on English dev, and the best ones are those of `small`."""
    found = cells("small_search")
    assert all(cell.file.endswith("eng.testa") and cell.target == "en" for cell in found)
    assert not any(cell.overrides["model.adaptation.enabled"] for cell in found)
    rates: dict[str, set[float]] = {"base": set(), "full": set()}
    for cell in found:
        rates[cell.system.split("_")[0]].add(cell.needs.config["trainer"]["optimizer"]["lr"])
    assert rates["base"] == rates["full"] and len(rates["base"]) == 3
    chosen = {cell.needs.folder for cell in cells("small") if cell.system in ("base", "full")}
    assert chosen < trainings(found)


def test_small_adaptation() -> None:
    """One model of `small`, adapted in several ways on English dev."""
    found = cells("small_adaptation")
    assert len(found) == 3
    full = next(cell for cell in cells("small") if cell.system == "full")
    assert trainings(found) == {full.needs.folder}
    settings = set()
    for cell in found:
        assert cell.file.endswith("eng.testa")
        assert cell.overrides["model.adaptation.enabled"]
        settings.add(cell.overrides["model.adaptation.inner_loop.optimizer.lr"])
    assert settings == {1e-5, 1e-4, 3e-4}


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


SECOND_STAGE = ("plain", "query_only", "maml", "maml_adam")


def shown(cell: Cell) -> int:
    """Sentences of a training: a task of K = 2 shows three."""
    config = cell.needs.config
    updates = config["trainer"]["num_epochs"] * config["data_loader"]["batches_per_epoch"]
    if "batch_size" in config["data_loader"]:
        return updates * config["data_loader"]["batch_size"] * 3
    return updates * config["data_loader"]["batch_sampler"]["batch_size"]


def test_from_base() -> None:
    """All ways from one base with as many sentences, the same rates and, masked or not, the same loss."""
    found = cells("from_base")
    names = {*SECOND_STAGE, *(f"{name}_masked" for name in SECOND_STAGE)}
    adapted = {f"{name}_adapted" for name in ("base", "plain", *names) if name[:4] in ("base", "maml")}
    assert {cell.system for cell in found} == {
        *names,
        *(f"{name}_mean" for name in names),
        *adapted,
        "plain_adapted",
        "base",
    }
    assert {cell.target for cell in found} == {"en", "pt", "da"}
    assert found[0].system == "base" or len(trainings(found)) == 9
    (base,) = trainings([cell for cell in found if cell.system == "base"])
    for cell in found:
        if cell.needs.folder == base:
            # That of `small/base_en`, whatever the ways' batches are.
            assert cell.needs.config["data_loader"]["batch_sampler"]["batch_size"] == 32
        assert cell.overrides["model.adaptation.enabled"] == cell.system.endswith("_adapted")
        assert cell.last == (5 if cell.system.endswith("_mean") else 1)
        config = cell.needs.config
        if cell.system.startswith("base"):
            continue
        assert shown(cell) == 14_400
        assert cell.needs.needs is not None and cell.needs.needs.folder == base
        assert config["model"]["initializer"]["regexes"][0][1]["weights_file_path"].endswith(
            f"{base}/run/model_state_e3_b0.th"
        )
        assert config["trainer"]["optimizer"]["lr"] == 3e-5
        assert config["trainer"]["checkpointer"]["keep_most_recent_by_count"] == 5
        assert config["trainer"]["num_epochs"] >= 5
        masked = "_masked" in cell.system
        assert config["model"]["max_loss_weight"] == (2.0 if masked else 0.0)
        reader = config["dataset_reader"].get("base_reader", config["dataset_reader"])
        assert (reader["token_indexers"]["tokens"]["type"] == "entity_masking") == masked
        inner = config["trainer"].get("meta_gradient", {})
        assert (inner.get("type") == "query_only") == cell.system.startswith("query_only")
        if cell.system.startswith("maml"):
            # Not given: the optimiser's own.
            eps = 1e-8 if "adam" in cell.system else 3.16e-5
            for optimizer in (
                inner["inner_loop"]["optimizer"],
                config["model"]["adaptation"]["inner_loop"]["optimizer"],
            ):
                assert optimizer.get("eps", 1e-8) == pytest.approx(eps, rel=1e-2)
    assert trainings(cells("from_base_targets")) == trainings(found)


def test_from_base_search() -> None:
    """As many outer rates for each way."""
    rates: dict[str, set[float]] = {}
    for cell in cells("from_base_search"):
        name = cell.system.rstrip("0123456789").rsplit("_", 1)[0]
        rates.setdefault("maml" if "maml" in name else name, set()).add(
            cell.needs.config["trainer"]["optimizer"]["lr"]
        )
    assert {name: len(found) for name, found in rates.items()} == {"plain": 3, "query_only": 3, "maml": 3}
    assert rates["plain"] == rates["query_only"] == rates["maml"]


def test_medium() -> None:
    found = cells("medium")
    assert {cell.system.split("_")[0] for cell in found} == {"base", "query", "maml", "full"}
    assert len(trainings(found)) == 4
    assert all(shown(cell) == 72_000 for cell in found)
    for cell in found:
        config = cell.needs.config
        masked = cell.system.startswith("full")
        assert config["model"]["max_loss_weight"] == (2.0 if masked else 0.0)
        if "batch_size" in config["data_loader"]:
            indexer = config["dataset_reader"]["base_reader"]["token_indexers"]["tokens"]
            assert indexer["probability"] == (0.2 if masked else 0.0)
    assert trainings(cells("medium_targets")) == trainings(found)


def test_adaptation() -> None:
    """Every cell is of one base model, and no two are the same."""
    found = cells("adaptation")
    assert len({cell.hash for cell in found}) == len(found) == 2 * (1 + 10 + 3 + 2 + 2)
    (base,) = trainings(found)
    assert base.name.startswith("base_en-13370")
    for cell in found:
        assert cell.overrides["model.ignored_types"] == ["MISC"]
        assert cell.overrides["model.adaptation.enabled"] == (not cell.target.endswith("_none"))
        assert cell.file.endswith(".dev.iob2")


def test_what_adapts() -> None:
    """Cells of one base model that differ in what adapts, and second stages from it by several algorithms."""
    found = cells("what_adapts")
    base = [cell for cell in found if cell.system == "base"]
    adapted = {"all": None, "two_layers": 2, "head": 1, "head_10": 1}
    assert {cell.target for cell in base} == {
        f"{language}_{way}" for language in ("da", "pt") for way in ("none", *adapted)
    }
    for cell in base:
        way = cell.target[3:]
        assert cell.overrides["model.adaptation.enabled"] == (way != "none")
        if way != "none":
            parameters = cell.overrides["model.adaptation.inner_loop.parameters"]
            assert (parameters and len(parameters)) == adapted[way]
            step = cell.overrides["model.adaptation.inner_loop.optimizer"]
            assert step["lr"] == pytest.approx(3.16e-4 if way == "head_10" else 3.16e-5, rel=1e-3)
            assert step["eps"] == pytest.approx(3.16e-5, rel=1e-3)
    algorithms = {}
    for cell in found:
        if cell.system == "base":
            continue
        assert cell.needs.needs is not None and {cell.needs.needs.folder} == trainings(base)
        assert (
            not cell.overrides["model.adaptation.enabled"]
            and cell.target.endswith("_none")
            and cell.last == 1
        )
        assert shown(cell) == 300 * 8 * 3
        meta_gradient = cell.needs.config["trainer"]["meta_gradient"]
        parts = meta_gradient.get("inner_loop", {}).get("parameters")
        algorithms[cell.system] = (meta_gradient["type"], parts)
    head = [r"^classifier\."]
    assert algorithms == {
        "null_rate": ("query_only", None),
        "first_order": ("first_order_maml", None),
        "reptile": ("reptile", None),
        "anil": ("anil", head),
        "second_order_head": ("maml", head),
    }


def test_averaged_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One training, as long as the base model's, of which all checkpoints are kept: also where finished runs are
    named, which have others.
    """
    monkeypatch.setenv("METANER_BASE", "runs/base/{seed}")
    found = cells("averaged_checkpoints")
    assert {(cell.system, cell.last) for cell in found} == {(f"last_{n}", n) for n in (1, 2, 3, 5)}
    assert {cell.target for cell in found} == {"en", "da", "pt"}
    assert len(trainings(found)) == 1
    for cell in found:
        trainer = cell.needs.config["trainer"]
        assert shown(cell) == 10 * 132 * 32 == pytest.approx(3 * 14041, abs=132)
        assert trainer["checkpointer"]["keep_most_recent_by_count"] > trainer["num_epochs"]
        assert cell.overrides["model.adaptation.enabled"] is False


def test_grids_of_finished_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "13370"
    folder.mkdir()
    (folder / "config.json").write_text("{}", "utf-8")
    monkeypatch.setenv("METANER_BASE", str(tmp_path / "{seed}"))
    assert {cell.needs.run for cell in cells("adaptation")} == {folder}
    starts = {cell.needs.needs.run for cell in cells("from_base_search") if cell.needs.needs}
    assert starts == {folder}


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
