"""From a Jsonnet grid (systems x targets x seeds) to the trainings and evaluations that it asks for."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.params import with_overrides
from allennlp.models.archival import CONFIG_NAME

from allennlp_metaner.experiments.jobs import Cell, Training, digest

SEEDS = ("random_seed", "numpy_seed", "pytorch_seed")
"""The keys of a config that a seed of the grid sets."""

_NAMES = {int: "a whole number", str: "a string", dict: "an object", list: "a list", bool: "true or false"}
_GRID = {"seeds": list, "environment": dict, "systems": dict, "targets": dict}
_SYSTEM = {
    "config": str,
    "run": str,
    "overrides": dict,
    "environment": dict,
    "seeds": list,
    "targets": list,
    "adapt": bool,
    "start": str,
    "last": int,
}
_TARGET = {"file": str, "overrides": dict}


def read_grid(path: str | os.PathLike[str], directory: Path) -> list[Cell]:
    """
    The cells of a grid. A grid is a Jsonnet object:

    seeds : `list[int]`
        A training for each.
    systems : `dict[str, dict]`
        By name. `config` is the file of a training config, relative to the grid's own, or `run` the folder of
        a finished run, in which "{seed}" stands for the seed; all else is optional. `overrides` and
        `environment` change the config, as `-o` and the shell do; `seeds` and `targets` replace those of the
        grid; `adapt` says whether sentences are labelled with adaptation (default: as the config says);
        `start` is the name of a system whose training with the same seed is what `METANER_START` names;
        `last` evaluates the mean of the weights of so many last checkpoints (1: the last one), instead of the
        weights that are best on dev data.
    targets : `dict[str, dict]`
        By name: the test `file`, and the `overrides` of an archive that can read it (optional).
    environment : `dict[str, str]`, optional (default = `{}`)
        Environment variables for the configs of all systems.

    # Parameters

    path : `str` or `os.PathLike`
    directory : `Path`
        The folder of the experiment, which trainings that start from another one need to know.

    # Raises

    `ConfigurationError`, if the grid or a config of it cannot be evaluated, or the grid has a wrong key or
    value.
    """
    return _Grid(Path(path), directory.resolve()).cells()


class _Grid:
    def __init__(self, path: Path, directory: Path) -> None:
        self._path = path
        self._directory = directory
        grid = _evaluate(path, {}, "the grid")
        self._check(grid, "", _GRID, required={"seeds", "systems", "targets"})
        self._seeds = self._checked_seeds(grid["seeds"], "seeds")
        self._environment = self._checked_environment(grid, "")
        self._systems: dict[str, dict[str, Any]] = grid["systems"]
        self._targets: dict[str, dict[str, Any]] = grid["targets"]
        self._trainings: dict[tuple[str, int], Training] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        for kind, entries, keys, required in (
            ("systems", self._systems, _SYSTEM, set[str]()),
            ("targets", self._targets, _TARGET, {"file"}),
        ):
            if not entries:
                raise self._error(kind, entries, f"at least one of the {kind}")
            for name, entry in entries.items():
                # The names become those of folders.
                if not re.fullmatch(r"\w[\w.+]*", name):
                    raise self._error(kind, name, "a name of letters, digits, '_', '.' and '+'")
                self._check(entry, f"{kind}.{name}", keys, required)
        for name, entry in self._systems.items():
            self._check_system(entry, f"systems.{name}")

    def cells(self) -> list[Cell]:
        cells = []
        for system, entry in self._systems.items():
            where = f"systems.{system}"
            seeds = self._checked_seeds(entry.get("seeds", self._seeds), f"{where}.seeds")
            adaptation = {"model.adaptation.enabled": entry["adapt"]} if "adapt" in entry else {}
            targets = entry.get("targets", list(self._targets))
            for target in targets:
                self._check_name(target, self._targets, f"{where}.targets")
            for seed in seeds:
                training = self._training(system, seed)
                for target in targets:
                    file, overrides = (
                        self._targets[target]["file"],
                        self._targets[target].get("overrides", {}),
                    )
                    cells.append(
                        Cell(system, target, training, file, {**overrides, **adaptation}, entry.get("last"))
                    )
        return cells

    def _training(self, system: str, seed: int, followers: tuple[str, ...] = ()) -> Training:
        # Evaluating a config takes a while, and many systems may start from one.
        if (system, seed) not in self._trainings:
            self._trainings[system, seed] = self._evaluated(system, seed, followers)
        return self._trainings[system, seed]

    def _evaluated(self, system: str, seed: int, followers: tuple[str, ...]) -> Training:
        entry, where = self._systems[system], f"systems.{system}"
        if "run" in entry:
            return self._finished(entry["run"], seed, f"{where}.run")
        environment = {
            **self._environment,
            **self._checked_environment(entry, where),
            "METANER_SEED": str(seed),
        }
        start = None
        if "start" in entry:
            others = [name for name in self._systems if name not in (system, *followers)]
            self._check_name(entry["start"], others, f"{where}.start")
            start = self._training(entry["start"], seed, (system, *followers))
            environment["METANER_START"] = str(self._directory / start.folder / "run")
        source = os.path.normpath(self._path.parent / entry["config"])
        overrides = {**entry.get("overrides", {}), **dict.fromkeys(SEEDS, seed)}
        config = self._config(source, overrides, environment, f"{self._path}: {where}.config")
        # Where the folder of the experiment is does not make a training another one.
        identity = json.dumps(config, sort_keys=True)
        if start:
            identity = identity.replace(json.dumps(str(self._directory))[1:-1], "")
        return Training(config, digest(identity), source, seed, environment, start)

    def _config(
        self, source: str, overrides: dict[str, Any], environment: dict[str, str], where: str
    ) -> dict[str, Any]:
        # Many systems differ in overrides alone, and Jsonnet takes long to start.
        key = json.dumps([source, environment], sort_keys=True)
        if key not in self._configs:
            self._configs[key] = _evaluate(Path(source), environment, where)
        try:
            return with_overrides(self._configs[key], overrides)
        except ValueError as error:
            raise _cannot_be_evaluated(Path(source), where, error) from error

    def _finished(self, run: str, seed: int, where: str) -> Training:
        folder = Path(run.replace("{seed}", str(seed))).resolve()
        config = _evaluate(folder / CONFIG_NAME, {}, f"{self._path}: {where}")
        # The folder's name is that of a job, which should say where it is from.
        source = f"{folder.parent.name}.run"
        return Training(
            config, digest(json.dumps([config, seed], sort_keys=True)), source, seed, {}, run=folder
        )

    def _check_system(self, entry: dict[str, Any], where: str) -> None:
        if ("config" in entry) == ("run" in entry):
            raise self._error(where, list(entry), "either config or run")
        unused = [key for key in ("overrides", "environment", "start") if "run" in entry and key in entry]
        if unused:
            raise self._error(where, unused, "run without these, since a finished run is taken as it is")
        if entry.get("last", 1) < 1 or isinstance(entry.get("last"), bool):
            raise self._error(f"{where}.last", entry["last"], "a number of checkpoints, 1 or more")

    def _check(self, value: Any, where: str, keys: Mapping[str, type], required: set[str]) -> None:
        if not isinstance(value, dict):
            raise self._error(where, value, "an object")
        for key, found in value.items():
            if key not in keys:
                raise self._error(where, key, f"the keys {', '.join(keys)}")
            if not isinstance(found, keys[key]):
                raise self._error(f"{where}.{key}".lstrip("."), found, _NAMES[keys[key]])
        for key in sorted(required - value.keys()):
            raise self._error(f"{where}.{key}".lstrip("."), None, _NAMES[keys[key]])

    def _checked_seeds(self, seeds: list[Any], where: str) -> list[int]:
        # In Python, true is a number.
        if (
            not seeds
            or len(set(map(str, seeds))) < len(seeds)
            or any(type(seed) is not int for seed in seeds)
        ):
            raise self._error(where, seeds, "at least one whole number, and none twice")
        return seeds

    def _checked_environment(self, entry: dict[str, Any], where: str) -> dict[str, str]:
        environment = entry.get("environment", {})
        for name, value in environment.items():
            if type(value) not in (str, int):
                raise self._error(
                    f"{where}.environment.{name}".lstrip("."), value, "a string or a whole number"
                )
        return {name: str(value) for name, value in environment.items()}

    def _check_name(self, name: Any, names: Any, where: str) -> None:
        if name not in names:
            raise self._error(where, name, f"one of {', '.join(names) or 'nothing, as there is no other'}")

    def _error(self, where: str, received: Any, valid: str) -> ConfigurationError:
        found = "nothing" if received is None else json.dumps(received, ensure_ascii=False)
        return ConfigurationError(
            f"{self._path}: {where or 'the grid'}: received {found}, but valid is {valid}"
        )


def _evaluate(path: Path, environment: dict[str, str], where: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigurationError(f"{where}: there is no file {path}")
    try:
        params = Params.from_file(str(path), ext_vars=environment)
        if isinstance(params.params, dict):
            return params.as_dict(quiet=True)
    except (RuntimeError, ValueError) as error:
        raise _cannot_be_evaluated(path, where, error) from error
    raise ConfigurationError(f"{where}: {path} must be an object")


def _cannot_be_evaluated(path: Path, where: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"{where}: {path} cannot be evaluated: {error}")
