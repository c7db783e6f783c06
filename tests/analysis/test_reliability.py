"""The table of confidence against precision, against counts by hand."""

import pytest

from allennlp_metaner.analysis.reliability import EDGES, ScoredSentence, reliability

SENTENCES = [
    # Right, wrong boundary, wrong type.
    ScoredSentence(
        ["B-PER", "O", "B-LOC", "I-LOC", "B-ORG"], ["B-PER", "O", "B-LOC", "O", "B-PER"], [0.96, 0.4, 0.5]
    ),
    # Right twice; an edge belongs to the bin that it begins, and 1 to the last one.
    ScoredSentence(["B-PER", "B-PER"], ["B-PER", "B-PER"], [0.5, 1.0]),
    ScoredSentence(["O"], ["O"], []),
]


def test_bins() -> None:
    found = reliability(SENTENCES)
    counts = {bin.start: (bin.predicted, bin.correct, round(bin.confidence, 6)) for bin in found.bins}
    expected = dict.fromkeys(EDGES, (0, 0, 0.0))
    expected |= {0.3: (1, 0, 0.4), 0.5: (2, 1, 1.0), 0.95: (1, 1, 0.96), 0.99: (1, 1, 1.0)}
    assert counts == expected
    assert found.gold == 5
    # |0 - 0.4| + |1 - 1| + |1 - 0.96| + |1 - 1|, of five entities.
    assert found.calibration_error == pytest.approx((0.4 + 0.04) / 5)


def test_table() -> None:
    lines = reliability(SENTENCES).as_markdown().splitlines()
    assert lines[2] == "| 0 to 30 | 0 | - | - | 60.0 | 60.0 | 60.0 |"
    assert lines[4] == "| 50 to 70 | 2 | 50.0 | 50.0 | 75.0 | 60.0 | 66.7 |"
    assert lines[9] == "| 99 to 100 | 1 | 100.0 | 100.0 | 100.0 | 20.0 | 33.3 |"
    assert lines[-1] == "Expected calibration error: 8.8"


def test_nothing_found() -> None:
    found = reliability([])
    assert found.calibration_error == 0
    assert "| 0 to 30 | 0 | - | - | - | - | - |" in found.as_markdown()


def test_confidences_that_do_not_fit() -> None:
    with pytest.raises(ValueError):
        reliability([ScoredSentence(["O"], ["B-PER"], [])])
