"""The bootstrap against a plain loop and in known cases; its counts against other scorers."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score

from allennlp_metaner.analysis.bootstrap import draws, f1, paired_bootstrap, sentence_counts
from allennlp_metaner.nn.span_f1 import SpanF1

TAGS = st.sampled_from(["O", "O", "B-PER", "I-PER", "I-PER", "B-LOC", "I-LOC"])
PAIRS = st.lists(TAGS.flatmap(lambda tag: st.tuples(st.just(tag), st.just(tag) | TAGS)), max_size=12)


def system(seeds: int, sentences: int, share: float, seed: int = 0) -> np.ndarray:
    """Made-up counts: of up to three gold entities in a sentence, `share` are found."""
    generator = np.random.default_rng(seed)
    gold = np.random.default_rng(99).integers(0, 4, sentences)
    correct = generator.binomial(gold, share, (seeds, sentences))
    predicted = correct + generator.binomial(2, 0.2, (seeds, sentences))
    return np.stack([correct, predicted, np.broadcast_to(gold, correct.shape)], axis=-1)


def plain_f1(counts: np.ndarray, weights: np.ndarray) -> float:
    correct = predicted = gold = 0
    for sentence, weight in zip(counts, weights, strict=True):
        correct += int(weight) * int(sentence[0])
        predicted += int(weight) * int(sentence[1])
        gold += int(weight) * int(sentence[2])
    if correct == 0:
        return 0.0
    precision, recall = correct / predicted, correct / gold
    return 2 * precision * recall / (precision + recall)


def plain_mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(("seeds", "paired"), [((3, 3), True), ((3, 3), False), ((3, 1), False)])
def test_against_a_plain_loop(seeds: tuple[int, int], paired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three blocks, the last one smaller.
    monkeypatch.setattr("allennlp_metaner.analysis.bootstrap._DRAWS", 20 * 30)
    first, second, resamples = system(seeds[0], 30, 0.7, 1), system(seeds[1], 30, 0.6, 2), 50
    everything = np.ones(30, int)
    measured = plain_mean([plain_f1(seed, everything) for seed in first]) - plain_mean(
        [plain_f1(seed, everything) for seed in second]
    )
    differences = []
    for weights, ours, theirs in draws(30, *seeds, paired, resamples, 5):
        assert (weights.sum(1) == 30).all()
        assert len(weights) <= 20
        assert not paired or (ours == theirs).all()
        for row in range(len(weights)):
            differences.append(
                plain_mean([plain_f1(first[seed], weights[row]) for seed in ours[row]])
                - plain_mean([plain_f1(second[seed], weights[row]) for seed in theirs[row]])
            )
    found = paired_bootstrap(first, second, paired, resamples, confidence=0.9, random_seed=5)
    assert len(differences) == resamples
    assert found.difference == pytest.approx(measured)
    as_far = sum(abs(difference - measured) >= abs(measured) for difference in differences)
    assert found.p_value == (1 + as_far) / 51
    # Of 50 sorted values, the quantile 0.05 lies at position 49 * 0.05.
    ordered = sorted(differences)
    assert found.low == pytest.approx(ordered[2] + 0.45 * (ordered[3] - ordered[2]))
    assert found.high == pytest.approx(ordered[46] + 0.55 * (ordered[47] - ordered[46]))


def test_draws_are_with_replacement_and_even() -> None:
    blocks = list(draws(40, 3, 2, False, 4000, 0))
    weights, ours, theirs = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    assert (weights.shape, ours.shape, theirs.shape) == ((4000, 40), (4000, 3), (4000, 2))
    # Each sentence once on average, with the variance of a multinomial count.
    assert weights.mean(0) == pytest.approx(np.ones(40), abs=0.08)
    assert weights.var(0) == pytest.approx(np.full(40, 1 - 1 / 40), abs=0.15)
    for seeds, number in ((ours, 3), (theirs, 2)):
        assert np.bincount(seeds.ravel()) / seeds.size == pytest.approx(np.full(number, 1 / number), abs=0.03)
        assert any(len(set(row)) < number for row in seeds.tolist())
    repeated = list(draws(40, 3, 2, False, 4000, 0))
    assert all((a[0] == b[0]).all() for a, b in zip(blocks, repeated, strict=True))


def test_identical_systems() -> None:
    found = paired_bootstrap(system(3, 50, 0.7), system(3, 50, 0.7), True, 200)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_far_better_system() -> None:
    better, worse = system(3, 400, 0.9, 1), system(3, 400, 0.5, 2)
    found = paired_bootstrap(better, worse, True, 999)
    assert found.p_value == pytest.approx(1 / 1000)
    assert 0 < found.low < found.difference < found.high
    back = paired_bootstrap(worse, better, True, 999)
    assert back == type(back)(-found.difference, pytest.approx(-found.high), pytest.approx(-found.low), 1e-3)


def test_p_values_of_equally_good_systems_are_spread_evenly() -> None:
    values = [
        paired_bootstrap(
            system(1, 200, 0.7, 2 * number), system(1, 200, 0.7, 2 * number + 1), True, 200
        ).p_value
        for number in range(200)
    ]
    # A tenth of 200, within three standard deviations.
    assert 8 <= sum(value <= 0.1 for value in values) <= 33
    assert 0.4 < np.mean(values) < 0.6


def test_seeds_add_to_the_spread() -> None:
    spread = np.concatenate([system(1, 300, share, 1) for share in (0.3, 0.6, 0.9)])
    other = system(3, 300, 0.5, 2)
    together, alone = paired_bootstrap(spread, other, True), paired_bootstrap(spread[1:2], other[1:2], True)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_what_paired_seeds_share_cancels_out() -> None:
    # Both systems gain and lose with the seed; the second one is a little better with each.
    first = np.concatenate([system(1, 300, share, 1) for share in (0.4, 0.6, 0.8)])
    second = np.concatenate([system(1, 300, share + 0.05, 1) for share in (0.4, 0.6, 0.8)])
    pairs, apart = paired_bootstrap(second, first, True), paired_bootstrap(second, first, False)
    assert pairs.difference == apart.difference
    assert apart.high - apart.low > 3 * (pairs.high - pairs.low)
    assert pairs.p_value < 0.01 < apart.p_value


def test_large_test_sets_take_seconds() -> None:
    first, second = system(3, 5195, 0.7, 1), system(3, 5195, 0.69, 2)
    started = time.process_time()
    found = paired_bootstrap(first, second, True)
    assert time.process_time() - started < 20
    assert found == paired_bootstrap(first, second, True)


@given(st.lists(PAIRS, min_size=1, max_size=5))
def test_counts_as_other_scorers(sentences: list[list[tuple[str, str]]]) -> None:
    gold = [[gold for gold, _ in sentence] for sentence in sentences]
    predicted = [[predicted for _, predicted in sentence] for sentence in sentences]
    counts = np.array([sentence_counts(*pair) for pair in zip(gold, predicted, strict=True)])
    metric = SpanF1()
    metric(predicted, gold)
    assert f1(counts.sum(0)) == pytest.approx(metric.get_metric()["f1-measure-overall"])
    assert f1(counts.sum(0)) == pytest.approx(float(f1_score(gold, predicted, zero_division=0)))


def test_refused() -> None:
    with pytest.raises(ValueError, match="2 gold but 1 predicted tags"):
        sentence_counts(["O", "O"], ["O"])
    with pytest.raises(ValueError, match=r"\(1, 4, 3\) and \(1, 5, 3\).*the same sentences"):
        paired_bootstrap(system(1, 4, 0.5), system(1, 5, 0.5), True)
    with pytest.raises(ValueError, match="at least one of each"):
        paired_bootstrap(system(1, 0, 0.5), system(1, 0, 0.5), True)
    with pytest.raises(ValueError, match="1 and 2 seeds cannot be pairs"):
        paired_bootstrap(system(1, 4, 0.5), system(2, 4, 0.5), True)
