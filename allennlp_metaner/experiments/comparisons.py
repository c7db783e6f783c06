"""Which systems of a grid differ by more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.analysis.bootstrap import RESAMPLES, Comparison, paired_bootstrap
from allennlp_metaner.experiments.exposure import equal_data
from allennlp_metaner.experiments.results import Predictions, Results


class Pair(NamedTuple):
    """Two systems, to be compared on a target."""

    target: str
    first: str
    second: str


@dataclass(frozen=True)
class Compared:
    """
    # Parameters

    pair : `Pair`
    first_seeds : `list[int]`
        Those that both systems have, or, if there is none, all.
    second_seeds : `list[int]`
    num_sentences : `int`
    outcome : `Comparison`
        Of the first system minus the second, as fractions.
    """

    pair: Pair
    first_seeds: list[int]
    second_seeds: list[int]
    num_sentences: int
    outcome: Comparison

    @property
    def seeds_paired(self) -> bool:
        return self.first_seeds == self.second_seeds


def pairs(results: Results, more: Sequence[Sequence[str]] = ()) -> list[Pair]:
    """
    For each target, every system with plain training (and labelling without adaptation) on as many sentences,
    if the grid has it. If not, with the grid's first system that is evaluated on the target, or, if its name
    begins with "full", with the one whose name begins with "base" and ends alike. Then `more`.

    # Parameters

    results : `Results`
    more : `Sequence[Sequence[str]]`, optional (default = `()`)
        Pairs of systems, each to be compared on all targets that both are evaluated on.

    # Raises

    `ConfigurationError`, if a pair of `more` names a system that the grid lacks or is twice the same, or its
    systems have no target in common.
    """
    found = []
    for target in results.targets:
        systems = [system for system in results.systems if target in results.targets_of(system)]
        references = {system: _reference(results, system, systems) for system in systems}
        found += [Pair(target, *pair) for pair in references.items() if pair[0] != pair[1]]
    for first, second in more:
        for system in (first, second):
            if system not in results.systems:
                raise ConfigurationError(
                    f"--compare {first} {second}: the grid has no system {system}, but "
                    f"{', '.join(results.systems)}"
                )
        if first == second:
            raise ConfigurationError(f"--compare {first} {second}: give two different systems")
        common = [target for target in results.targets_of(first) if target in results.targets_of(second)]
        if not common:
            raise ConfigurationError(
                f"--compare {first} {second}: no target in common; {first} is evaluated on "
                f"{', '.join(results.targets_of(first))}, {second} on {', '.join(results.targets_of(second))}"
            )
        found += [Pair(target, first, second) for target in common]
    # The same the other way round says nothing new.
    once: dict[tuple[str, frozenset[str]], Pair] = {}
    for pair in found:
        once.setdefault((pair.target, frozenset((pair.first, pair.second))), pair)
    return list(once.values())


def _reference(results: Results, system: str, systems: Sequence[str]) -> str:
    shown = results.shown[system]
    equal = (other for other in systems if other in results.plain and equal_data(results.shown[other], shown))
    plain = next(equal, system)
    if plain != system:
        return plain
    namesake = "base" + system.removeprefix("full")
    return namesake if namesake in systems and namesake != system else systems[0]


def compare(
    results: Results, wanted: Sequence[Pair], resamples: int = RESAMPLES
) -> tuple[list[Compared], list[Pair]]:
    """
    # Parameters

    results : `Results`
    wanted : `Sequence[Pair]`
    resamples : `int`, optional (default = `10_000`)

    # Returns

    `tuple[list[Compared], list[Pair]]`
        The comparisons, and the pairs for which a system has no predictions yet.

    # Raises

    `ConfigurationError`, if the predictions that are to be compared are for different sentences.
    """
    compared, missing = [], []
    for pair in wanted:
        first, second = (_predictions(results, system, pair.target) for system in (pair.first, pair.second))
        if not first or not second:
            missing.append(pair)
            continue
        _check_sentences([*first.values(), *second.values()])
        # A seed that one system lacks would add the difference between seeds to that between systems.
        if first.keys() & second.keys():
            first, second = _of_common_seeds(first, second), _of_common_seeds(second, first)
        compared.append(
            Compared(
                pair,
                list(first),
                list(second),
                len(next(iter(first.values())).sentences),
                paired_bootstrap(_counts(first), _counts(second), list(first) == list(second), resamples),
            )
        )
    return compared, missing


def _predictions(results: Results, system: str, target: str) -> dict[int, Predictions]:
    """By seed, in ascending order."""
    found = {
        result.cell.seed: result.predictions
        for result in results.of(system, target)
        if result.predictions is not None
    }
    return dict(sorted(found.items()))


def _of_common_seeds(
    predictions: dict[int, Predictions], others: dict[int, Predictions]
) -> dict[int, Predictions]:
    return {seed: found for seed, found in predictions.items() if seed in others}


def _counts(predictions: dict[int, Predictions]) -> np.ndarray:
    return np.stack([found.counts for found in predictions.values()])


def _check_sentences(predictions: Sequence[Predictions]) -> None:
    first = predictions[0]
    if not first.sentences:
        raise ConfigurationError(f"{first.path}: no sentences, so there is nothing to compare")
    for other in predictions[1:]:
        if other.sentences == first.sentences:
            continue
        if len(other.sentences) != len(first.sentences):
            where = f"{len(first.sentences)} and {len(other.sentences)} sentences"
        else:
            same = map(bytes.__eq__, first.sentences, other.sentences)
            where = f"words or gold tags of line {list(same).index(False) + 1} differ"
        raise ConfigurationError(
            f"{first.path} and {other.path} cannot be compared: {where}; evaluate both systems on the same "
            "file, read with the same label map"
        )
