"""Which sentences are cases, of which kind, and what is counted."""

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allennlp_metaner.analysis.case_studies import KINDS, Case, find_differences, missed
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.nn.span_f1 import SpanF1

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])


def case(gold: Optional[str], base: str, adapted: str, number: int = 1) -> Case:
    words = ["word"] * len(base.split())
    return Case(number, words, None if gold is None else gold.split(), base.split(), adapted.split())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    length = draw(st.integers(1, 6))
    gold, base, adapted = (draw(st.lists(TAGS, min_size=length, max_size=length)) for _ in range(3))
    return Case(1, ["word"] * length, gold, base, draw(st.sampled_from([gold, base, adapted])))


@pytest.mark.parametrize(
    ("gold", "base", "adapted", "kind"),
    [
        ("B-PER I-PER O", "B-PER O O", "B-PER I-PER O", "fixed"),
        ("B-PER I-PER O", "B-PER I-PER O", "O O O", "regressed"),
        ("B-PER I-PER O", "B-PER O O", "B-LOC I-LOC O", "changed"),
        ("B-PER I-PER O", "B-PER O O", "B-PER O O", None),
        (None, "B-PER O O", "O O O", "unknown"),
        (None, "O O O", "O O O", None),
        # No gold entities are known ones, too.
        ("O O O", "O O B-LOC", "O O O", "fixed"),
        # Other tags, but the same entities.
        ("B-PER I-PER O", "I-PER I-PER O", "B-PER I-PER [SEP]", None),
        ("I-PER I-PER O", "B-PER B-PER O", "B-PER I-PER O", "fixed"),
    ],
)
def test_kinds(gold: Optional[str], base: str, adapted: str, kind: Optional[str]) -> None:
    assert case(gold, base, adapted).kind == kind
    assert kind is None or kind in KINDS


@given(st.lists(cases(), max_size=6), st.integers(1, 3))
def test_everything_is_counted_and_the_first_are_kept(sentences: list[Case], max_cases: int) -> None:
    differences = find_differences(iter(sentences), max_cases)
    differing = [sentence for sentence in sentences if spans(sentence.base) != spans(sentence.adapted)]
    assert differences.sentences == len(sentences)
    assert differences.differing == len(differing)
    assert differences.cases == differing[:max_cases]
    for counts, side in ((differences.base, "base"), (differences.adapted, "adapted")):
        metric = SpanF1()
        metric([getattr(sentence, side) for sentence in sentences], [s.gold or [] for s in sentences])
        if counts is None:
            assert not sentences
        else:
            assert counts.f1 == pytest.approx(metric.get_metric()["f1-measure-overall"])


def test_sentences_without_gold_tags_are_not_scored() -> None:
    unknown = case(None, "B-PER O O", "O O O")
    differences = find_differences([unknown, unknown], 9)
    assert (differences.base, differences.adapted, differences.kinds) == (None, None, {"unknown": 2})
    differences = find_differences([unknown, case("B-PER O O", "B-PER O O", "O O B-LOC", 2)], 9)
    assert differences.kinds == {"unknown": 1, "regressed": 1}
    assert differences.base is not None and differences.adapted is not None
    assert (differences.base.f1, differences.adapted.f1) == (1.0, 0.0)


def test_missed_is_what_no_prediction_touches() -> None:
    gold = spans(["B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG"])
    assert missed(gold, spans(["O", "B-LOC", "I-LOC", "O", "O", "O"])) == [("LOC", 3, 3), ("ORG", 5, 5)]
    assert missed(gold, gold) == []
