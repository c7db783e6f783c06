"""Whether the F1 of two systems differs by more than chance: a paired bootstrap over sentences and seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from allennlp_metaner.data.tag_schemes import spans

RESAMPLES = 10_000
CONFIDENCE = 0.95

# Numbers drawn at a time: few enough to stay in a processor's cache.
_DRAWS = 250_000
# Two differences that are equal on paper, such as one and its mirror image, are not always so in floats.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Comparison:
    """
    The outcome of a [`paired_bootstrap`](#paired_bootstrap).

    # Parameters

    difference : `float`
        Mean F1 of the first system minus that of the second, as fractions.
    low : `float`
    high : `float`
        The limits of the interval of the difference.
    p_value : `float`
        Two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float


def sentence_counts(gold: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    """
    What a sentence adds to corpus-level F1.

    # Parameters

    gold : `Sequence[str]`
        Tags; whatever is not BIO counts as `O`.
    predicted : `Sequence[str]`
        As many tags.

    # Returns

    `tuple[int, int, int]`
        The numbers of correct (by conlleval's rules), predicted and gold entities.

    # Raises

    `ValueError`, if the numbers of tags differ.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold but {len(predicted)} predicted tags: give one of each for a word")
    gold_spans, predicted_spans = set(spans(gold)), set(spans(predicted))
    return len(gold_spans & predicted_spans), len(predicted_spans), len(gold_spans)


def f1(counts: np.ndarray) -> np.ndarray:
    """
    # Parameters

    counts : `numpy.ndarray`
        Correct, predicted and gold entities, shape `(..., 3)`.

    # Returns

    `numpy.ndarray`
        Shape `(...)`: fractions, and 0 where there are no entities.
    """
    entities = counts[..., 1] + counts[..., 2]
    return 2.0 * counts[..., 0] / np.where(entities == 0, 1, entities)


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    paired_seeds: bool,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    random_seed: int = 0,
) -> Comparison:
    """
    Compares two systems by the mean over their seeds of corpus-level (micro-averaged) F1.

    A resample draws as many sentences as there are, with replacement, the same ones for both systems (Koehn,
    2004), and as many seeds as a system has, with replacement. A system with one seed always has that one:
    then the result says nothing of how it would be with others.

    The p-value is two-sided, by shifting (Berg-Kirkpatrick et al., 2012): the resampled differences scatter
    around the measured one as, without a difference, they would around zero. With `B` resamples,
    `p = (1 + number of resamples with |resampled - measured| >= |measured|) / (B + 1)`. The interval has the
    limits that cut off equal shares of the resampled differences.

    # Parameters

    first : `numpy.ndarray`
        Of each seed and sentence the counts of [`sentence_counts`](#sentence_counts), shape
        `(num_seeds, num_sentences, 3)`.
    second : `numpy.ndarray`
        The same of the other system. Its sentences are those of `first`; it may have other seeds.
    paired_seeds : `bool`
        Whether the seeds of both systems are the same, in the same order. Then a resample has the same ones
        of both; else they are drawn apart.
    resamples : `int`, optional (default = `10_000`)
    confidence : `float`, optional (default = `0.95`)
        Of the interval.
    random_seed : `int`, optional (default = `0`)
        The same seed gives the same result.

    # Returns

    `Comparison`

    # Raises

    `ValueError`, if there are no seeds or no sentences, if the systems' sentences differ in number, or their
    seeds though they should be pairs.
    """
    if 0 in (*first.shape, *second.shape) or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"counts of the shapes {first.shape} and {second.shape}: give (seeds, sentences, 3), with at "
            "least one of each, and the same sentences"
        )
    if paired_seeds and len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} seeds cannot be pairs: give paired_seeds=False")
    measured = float(f1(first.sum(1)).mean() - f1(second.sum(1)).mean())
    differences = np.concatenate(
        [
            _mean_f1(first, weights, ours) - _mean_f1(second, weights, theirs)
            for weights, ours, theirs in draws(
                first.shape[1], len(first), len(second), paired_seeds, resamples, random_seed
            )
        ]
    )
    extreme = int(np.count_nonzero(np.abs(differences - measured) >= abs(measured) - _TOLERANCE))
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Comparison(measured, float(low), float(high), (1 + extreme) / (resamples + 1))


def draws(
    sentences: int, first_seeds: int, second_seeds: int, paired_seeds: bool, resamples: int, random_seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """
    The random part of [`paired_bootstrap`](#paired_bootstrap), in blocks that need little memory.

    # Returns

    `Iterator[tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]]`
        For each block how often each sentence was drawn, shape `(block, sentences)`, and the positions of the
        drawn seeds, shapes `(block, first_seeds)` and `(block, second_seeds)`.
    """
    generator = np.random.default_rng(random_seed)
    largest = max(1, _DRAWS // sentences)
    for start in range(0, resamples, largest):
        block = min(largest, resamples - start)
        drawn = generator.integers(sentences, size=(block, sentences))
        # Each resample counts in bins of its own.
        drawn += sentences * np.arange(block)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=block * sentences).reshape(block, sentences)
        ours = generator.integers(first_seeds, size=(block, first_seeds))
        theirs = ours if paired_seeds else generator.integers(second_seeds, size=(block, second_seeds))
        yield weights, ours, theirs


def _mean_f1(counts: np.ndarray, weights: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Of each resample the mean F1 over its seeds, shape `(block,)`."""
    num_seeds, num_sentences, _ = counts.shape
    by_sentence = counts.transpose(1, 0, 2).reshape(num_sentences, num_seeds * 3)
    # In floats, since numpy multiplies integer matrices slowly; they hold such sums exactly.
    totals = weights.astype(np.float64) @ by_sentence.astype(np.float64)
    return np.take_along_axis(f1(totals.reshape(-1, num_seeds, 3)), seeds, axis=1).mean(1)
