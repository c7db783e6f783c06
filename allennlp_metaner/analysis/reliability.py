"""How far confidence can be trusted: confidence against precision, and what a threshold would leave."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from allennlp_metaner.analysis.markdown import markdown_table
from allennlp_metaner.data.tag_schemes import spans

EDGES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Where the bins of confidence begin; the last one ends with 1. Most entities are among the surest."""


class ScoredSentence(NamedTuple):
    """Gold and predicted BIO tags of a sentence, and the confidence of each predicted entity, in order."""

    gold: Sequence[str]
    predicted: Sequence[str]
    confidences: Sequence[float]


@dataclass
class Bin:
    """
    The predicted entities whose confidence is at least `start` and below the next bin's start.

    # Parameters

    start : `float`
    predicted : `int`
        How many they are.
    correct : `int`
        How many of them have the type and the boundaries of a gold entity.
    confidence : `float`
        The sum of their confidences.
    """

    start: float
    predicted: int = 0
    correct: int = 0
    confidence: float = 0.0


@dataclass(frozen=True)
class Reliability:
    """
    # Parameters

    bins : `list[Bin]`
        One for each of [`EDGES`](#edges).
    gold : `int`
        The number of gold entities.
    """

    bins: list[Bin]
    gold: int

    @property
    def calibration_error(self) -> float:
        """
        The expected calibration error: the mean over all predicted entities of the distance between their
        bin's precision and its mean confidence; 0, if there are none.
        """
        total = sum(found.predicted for found in self.bins)
        distance = sum(abs(found.correct - found.confidence) for found in self.bins)
        return distance / total if total else 0.0

    def as_dict(self) -> dict[str, Any]:
        """As a dictionary that can be written as JSON."""
        return {**asdict(self), "calibration_error": self.calibration_error}

    def as_markdown(self) -> str:
        """
        A line for each bin: its confidence, number of entities, mean confidence and precision; and the
        precision, recall and F1 of all entities that are at least as sure as its start, which a threshold
        there would leave. Numbers but the second are in per cent.
        """
        rows = []
        ends = [*(found.start for found in self.bins[1:]), 1.0]
        for number, (found, end) in enumerate(zip(self.bins, ends, strict=True)):
            kept = self.bins[number:]
            predicted = sum(other.predicted for other in kept)
            correct = sum(other.correct for other in kept)
            rows.append(
                [
                    f"{100 * found.start:g} to {100 * end:g}",
                    str(found.predicted),
                    _percent(found.confidence, found.predicted),
                    _percent(found.correct, found.predicted),
                    _percent(correct, predicted),
                    _percent(correct, self.gold),
                    _percent(2 * correct, predicted + self.gold),
                ]
            )
        columns = ["confidence", "entities", "mean confidence", "precision"]
        columns += ["from there: precision", "recall", "F1"]
        error = f"\nExpected calibration error: {100 * self.calibration_error:.1f}\n"
        return markdown_table(columns, rows) + error


def reliability(sentences: Iterable[ScoredSentence]) -> Reliability:
    """
    # Parameters

    sentences : `Iterable[ScoredSentence]`

    # Returns

    `Reliability`

    # Raises

    `ValueError`, if a sentence has not as many confidences as predicted entities.
    """
    bins = [Bin(edge) for edge in EDGES]
    num_gold = 0
    for gold, predicted, confidences in sentences:
        truth = set(spans(gold))
        num_gold += len(truth)
        for entity, confidence in zip(spans(predicted), confidences, strict=True):
            found = bins[bisect_right(EDGES, confidence) - 1]
            found.predicted += 1
            found.correct += entity in truth
            found.confidence += confidence
    return Reliability(bins, num_gold)


def _percent(part: float, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
