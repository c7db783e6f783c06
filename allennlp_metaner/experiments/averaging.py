"""Means of weights: of the last checkpoints of a run, and of several runs."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.models.archival import CONFIG_NAME, get_weights_path

from allennlp_metaner.archives import archive_model, unpacked
from allennlp_metaner.atomic import whole_file

_CHECKPOINT = re.compile(r"model_state_e(\d+)_b(\d+)\.th")
# They say nothing of what the weights mean.
_OTHER_SETTINGS = ("initializer", "adaptation")


def last_checkpoints(run: Path, number: int) -> list[Path]:
    """
    The model states of the last checkpoints of a run, oldest first.

    # Parameters

    run : `Path`
        A serialization directory.
    number : `int`
        How many.

    # Raises

    `ConfigurationError`, if there are fewer.
    """
    found = {}
    for path in run.glob("model_state_e*_b*.th"):
        if when := _CHECKPOINT.fullmatch(path.name):
            found[int(when[1]), int(when[2])] = path
    if number < 1 or len(found) < number:
        names = ", ".join(found[when].name for when in sorted(found)) or "none"
        raise ConfigurationError(
            f"{run}: the mean of the last {number} checkpoints is asked for, but there are {len(found)} "
            f"({names}). Ask for 1 or more of these, or keep more in training: "
            "trainer.checkpointer.keep_most_recent_by_count"
        )
    return [found[when] for when in sorted(found)[-number:]]


def mean_weights(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """
    The mean of each weight over files, added up in float64. What is no floating-point number must be the same
    everywhere.

    # Parameters

    files : `Sequence[Path]`
        Of one model, as `torch.save(model.state_dict())` writes them. One is read at a time.

    # Returns

    `dict[str, torch.Tensor]`
        Of the types of the first file.

    # Raises

    `ConfigurationError`, if the files' weights have other names or shapes, or differ where no mean is
    possible.
    """
    first = _load(files[0])
    sums = {name: weight.double() for name, weight in first.items() if weight.is_floating_point()}
    for path in files[1:]:
        other = _load(path)
        if names := sorted(first.keys() ^ other.keys()):
            raise _different(files[0], path, f"{names[0]} is in one of them alone")
        for name, weight in first.items():
            if other[name].shape != weight.shape:
                shapes = f"{tuple(weight.shape)} and {tuple(other[name].shape)}"
                raise _different(files[0], path, f"{name} has the shapes {shapes}")
            if name in sums:
                sums[name] += other[name].double()
            elif not torch.equal(other[name], weight):
                raise _different(files[0], path, f"{name} has no mean, and differs")
    return {
        name: (sums[name] / len(files)).to(weight.dtype) if name in sums else weight
        for name, weight in first.items()
    }


def write_average(sources: Sequence[Path], output: Path, last: Optional[int] = None) -> int:
    """
    Write an archive whose weights are the mean of others'. All else in it is the first source's.

    # Parameters

    sources : `Sequence[Path]`
        Serialization directories or archives.
    output : `Path`
        The archive. It is written whole or not at all.
    last : `int`, optional (default = `None`)
        Take so many last checkpoints of each source instead of its final weights. Archives have none.

    # Returns

    `int`
        The number of files that the mean is of.

    # Raises

    `ConfigurationError`, if there are no such checkpoints, or the sources are not of one model.
    """
    with ExitStack() as stack:
        runs = [stack.enter_context(unpacked(source)) for source in sources]
        _check_same_model(sources, runs)
        if last is None:
            files = [Path(get_weights_path(str(run))) for run in runs]
        else:
            files = [path for run in runs for path in last_checkpoints(run, last)]
        scratch = stack.enter_context(whole_file(output))
        weights = scratch.with_name("weights.th").resolve()
        with weights.open("wb") as file:
            torch.save(mean_weights(files), file)
        included = Params.from_file(str(runs[0] / CONFIG_NAME)).params.get("include_in_archive")
        archive_model(runs[0], str(weights), scratch, included)
    return len(files)


def _check_same_model(sources: Sequence[Path], runs: Sequence[Path]) -> None:
    for source, run in zip(sources, runs, strict=True):
        if _model(run) != _model(runs[0]):
            raise _different(sources[0], source, "the key 'model' of their configs is not the same")
        if _vocabulary(run) != _vocabulary(runs[0]):
            raise _different(sources[0], source, "their vocabularies are not the same")


def _model(run: Path) -> dict[str, Any]:
    settings = Params.from_file(str(run / CONFIG_NAME)).params["model"]
    return {key: value for key, value in settings.items() if key not in _OTHER_SETTINGS}


def _vocabulary(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "vocabulary").glob("*.txt")}


def _load(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu")


def _different(first: Path, second: Path, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"{first} and {second} cannot be averaged: {how}. Give runs of one config, with the same data, that "
        "differ in the seed or in the way that they were trained"
    )
