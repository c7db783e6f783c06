"""The error counts: each rule by an example, and what must hold for any tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allennlp_metaner.analysis.errors import Counts, LabelledSentence, analyse, as_markdown
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.nn.span_f1 import SpanF1

TAGS = st.sampled_from(["O", "O", "B-PER", "I-PER", "I-PER", "B-LOC", "I-LOC"])
# Independent draws hardly ever agree, so a predicted tag is often the gold one.
PAIRS = st.lists(TAGS.flatmap(lambda tag: st.tuples(st.just(tag), st.just(tag) | TAGS)), max_size=24)
WORDS = ["Anna", "Paris", "on"]


def sentence(pairs: list[tuple[str, str]]) -> LabelledSentence:
    words = [WORDS[position % len(WORDS)] for position in range(len(pairs))]
    return LabelledSentence(words, [gold for gold, _ in pairs], [predicted for _, predicted in pairs])


SENTENCES = st.lists(PAIRS.map(sentence), max_size=4)
SOURCE = st.none() | st.just([(["Anna", "Paris"], ["B-PER", "B-LOC"]), (["Paris", "on"], ["B-LOC", "I-LOC"])])


def overall(gold: str, predicted: str) -> Counts:
    words = ["word"] * len(gold.split())
    return analyse([LabelledSentence(words, gold.split(), predicted.split())])["overall"]["all"]


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ("B-PER I-PER O", "B-PER I-PER O", Counts(correct=1)),
        ("B-PER I-PER O", "O I-PER O", Counts(wrong_boundary=1)),
        ("B-PER I-PER O", "B-LOC I-LOC O", Counts(wrong_type=1)),
        ("B-PER I-PER O", "O O O", Counts(missed=1)),
        ("O O O", "O O B-PER", Counts(spurious=1)),
        # Neighbours share no word.
        ("B-PER O O", "O B-PER O", Counts(missed=1, spurious=1)),
        # Neither the type nor the boundaries.
        ("B-PER I-PER O", "B-LOC O O", Counts(missed=1, spurious=1)),
        # Cut in two, and two taken for one: one of them has the partner.
        ("B-PER I-PER O", "B-PER B-PER O", Counts(wrong_boundary=1, spurious=1)),
        ("B-PER B-PER O", "B-PER I-PER O", Counts(wrong_boundary=1, missed=1)),
        # From left to right, no entity takes a partner that the next one needs.
        ("B-PER I-PER B-PER I-PER", "B-PER I-PER I-PER B-PER", Counts(wrong_boundary=2)),
        ("B-PER I-PER I-PER B-PER I-PER", "B-PER B-PER I-PER I-PER O", Counts(wrong_boundary=2)),
        # Of two types at one place, only the same words or the same type count.
        ("B-PER I-PER I-PER", "B-LOC B-PER O", Counts(wrong_boundary=1, spurious=1)),
        ("I-PER I-LOC O", "B-PER B-LOC [CLS]", Counts(correct=2)),
    ],
)
def test_rules(gold: str, predicted: str, expected: Counts) -> None:
    assert overall(gold, predicted) == expected


@given(SENTENCES, SOURCE)
def test_every_entity_is_counted_once(sentences: list[LabelledSentence], source: object) -> None:
    tables = analyse(sentences, source)  # type: ignore[arg-type]
    total = tables["overall"]["all"]
    assert total.gold == sum(len(spans(s.gold)) for s in sentences)
    assert total.predicted == sum(len(spans(s.predicted)) for s in sentences)
    for rows in tables.values():
        for column, number in total.as_dict().items():
            assert sum(row.as_dict()[column] for row in rows.values()) == number
    for type_, row in tables["type"].items():
        assert row.gold == sum(entity[0] == type_ for s in sentences for entity in spans(s.gold))


@given(SENTENCES)
def test_exchange(sentences: list[LabelledSentence]) -> None:
    there = analyse(sentences)
    back = analyse(s._replace(gold=s.predicted, predicted=s.gold) for s in sentences)
    for table in ("overall", "length"):
        for row, counts in there[table].items():
            other = back[table][row]
            assert (counts.missed, counts.spurious) == (other.spurious, other.missed)
            assert (counts.correct, counts.wrong_type, counts.wrong_boundary) == (
                other.correct,
                other.wrong_type,
                other.wrong_boundary,
            )


@given(SENTENCES)
def test_perfect_prediction(sentences: list[LabelledSentence]) -> None:
    total = analyse(s._replace(predicted=s.gold) for s in sentences)["overall"]["all"]
    assert total == Counts(correct=total.gold)


@given(SENTENCES)
def test_as_the_metric_counts(sentences: list[LabelledSentence]) -> None:
    metric = SpanF1()
    metric([s.predicted for s in sentences], [s.gold for s in sentences])
    scores, total = metric.get_metric(), analyse(sentences)["overall"]["all"]
    assert scores["precision-overall"] == (total.correct / total.predicted if total.predicted else 0)
    assert scores["recall-overall"] == (total.correct / total.gold if total.gold else 0)


def test_tables() -> None:
    source = [(["New", "York", "won"], ["B-ORG", "I-ORG", "O"])]
    sentences = [
        LabelledSentence(["New", "York"], ["B-LOC", "I-LOC"], ["B-ORG", "I-ORG"]),
        LabelledSentence(["york"], ["B-LOC"], ["O"]),
        LabelledSentence(["York"] + ["x"] * 9, ["O"] * 10, ["B-PER"] + ["O"] * 9),
        LabelledSentence(["New"] + ["x"] * 10, ["B-PER"] + ["O"] * 10, ["B-PER"] + ["O"] * 10),
        LabelledSentence(["x"] * 51, ["O"] * 50 + ["B-LOC"], ["O"] * 51),
    ]
    tables = analyse(sentences, source)
    # A wrong type is filed under the gold one: there is no row for ORG.
    assert tables["type"] == {"LOC": Counts(missed=2, wrong_type=1), "PER": Counts(correct=1, spurious=1)}
    assert list(tables["type"]) == ["LOC", "PER"]
    # Parts of an entity, and other cases, were not seen; other types were.
    assert tables["text"] == {"seen": Counts(wrong_type=1), "unseen": Counts(correct=1, missed=2, spurious=1)}
    assert tables["length"] == {
        "1-10": Counts(missed=1, spurious=1, wrong_type=1),
        "11-20": Counts(correct=1),
        "21-30": Counts(),
        "31-50": Counts(),
        "51+": Counts(missed=1),
    }
    assert "text" not in analyse(sentences)


def test_markdown() -> None:
    tables = {
        "overall": {"all": Counts(correct=3, missed=1, wrong_type=2)},
        "type": {"A|B": Counts(spurious=1)},
    }
    assert as_markdown(tables).splitlines() == [
        "| entities | gold | predicted | correct | missed | spurious | wrong type | wrong boundary | F1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| all | 6 | 5 | 3 | 1 | 0 | 2 | 0 | 54.5 |",
        r"| type A\|B | 0 | 1 | 0 | 0 | 1 | 0 | 0 | 0.0 |",
    ]


def test_wrong_lengths() -> None:
    with pytest.raises(ValueError, match="'a b' has 2 words, but 2 gold and 1 predicted tags"):
        analyse([LabelledSentence(["a", "b"], ["O", "O"], ["O"])])
