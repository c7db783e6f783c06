"""What goes wrong in labelling: missed, spurious, wrongly typed and wrongly bounded entities."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import NamedTuple, Optional

from allennlp_metaner.analysis.markdown import markdown_table
from allennlp_metaner.data.tag_schemes import Span, spans

LONGEST = (10, 20, 30, 50)
"""The upper limits, in words, of the rows of the table "length"; one more row has none."""
_LENGTHS = [
    *(f"{before + 1}-{longest}" for before, longest in pairwise((0, *LONGEST))),
    f"{LONGEST[-1] + 1}+",
]

LEGEND = (
    "missed: a gold entity without a predicted one. spurious: the other way round. wrong type: its words. "
    "wrong boundary: the same type and a word in common. text seen: the source data has an entity of these "
    "words. length: words of the sentence.\n"
)
"""What the rows and columns of the table are."""

Pair = tuple[Optional[Span], Optional[Span]]
"""A gold entity and the predicted one that it is compared with; one of them may be missing."""


class LabelledSentence(NamedTuple):
    """Words, their gold and their predicted tags, all of one length. Tags that are not BIO count as `O`."""

    words: Sequence[str]
    gold: Sequence[str]
    predicted: Sequence[str]


@dataclass
class Counts:
    """
    How many entities have which outcome: see [`analyse`](#analyse). A gold entity is correct, missed, or has
    a wrong type or boundary; a predicted entity is correct, spurious, or has a wrong type or boundary.
    """

    correct: int = 0
    missed: int = 0
    spurious: int = 0
    wrong_type: int = 0
    wrong_boundary: int = 0

    @property
    def gold(self) -> int:
        return self.correct + self.missed + self.wrong_type + self.wrong_boundary

    @property
    def predicted(self) -> int:
        return self.correct + self.spurious + self.wrong_type + self.wrong_boundary

    @property
    def f1(self) -> float:
        """From 0 to 1, and 0 where there are no entities."""
        entities = self.gold + self.predicted
        return 2 * self.correct / entities if entities else 0.0

    def add(self, outcome: str, number: int = 1) -> None:
        setattr(self, outcome, getattr(self, outcome) + number)

    def as_dict(self) -> dict[str, int]:
        return {"gold": self.gold, "predicted": self.predicted, **asdict(self)}


Tables = dict[str, dict[str, Counts]]
"""Counts by the name of the table and of the row."""


def analyse(
    sentences: Iterable[LabelledSentence],
    source: Optional[Iterable[tuple[Sequence[str], Sequence[str]]]] = None,
) -> Tables:
    """
    Compares predicted with gold entities by conlleval's rules ([`spans`](../data/tag_schemes.md#spans)).

    Within a sentence, a gold and a predicted entity make a pair if they have the same words, or if they have
    the same type and share a word. Every entity is in one pair at most: from left to right, a gold entity
    gets the first predicted one that is left. Then

    - `correct` is a pair with the same words and the same type,
    - `wrong_type` a pair with the same words,
    - `wrong_boundary` a pair with the same type,
    - `missed` a gold entity without a partner,
    - `spurious` a predicted entity without a partner.

    So an entity that is predicted with another type *and* other boundaries is missed, and its prediction
    spurious; of two predictions inside of one gold entity, the second is spurious. Exchanging gold and
    predicted tags exchanges `missed` and `spurious`, and changes no other count.

    A pair is filed under the type and the words of its gold entity. The column `predicted` of a type is
    therefore the number of predicted entities that are filed there, wrong types included.

    # Parameters

    sentences : `Iterable[LabelledSentence]`
    source : `Iterable[Tuple[Sequence[str], Sequence[str]]]`, optional (default = `None`)
        Words and BIO tags of the training data, for the table "text".

    # Returns

    `Dict[str, Dict[str, Counts]]`
        The tables "overall" (the one row "all"), "type" (a row for each type), "text" (if there is a
        `source`: "seen" where exactly the entity's words, in the same case, are an entity of any type there,
        or else "unseen") and "length" (the words of the sentence: "1-10", ...).

    # Raises

    `ValueError`, if a sentence has not as many gold or predicted tags as words.
    """
    seen = None if source is None else {text for words, tags in source for text in _entity_texts(words, tags)}
    tables: Tables = {"overall": {"all": Counts()}, "type": {}}
    if seen is not None:
        tables["text"] = {"seen": Counts(), "unseen": Counts()}
    tables["length"] = {name: Counts() for name in _LENGTHS}
    for words, gold, predicted in sentences:
        if not len(words) == len(gold) == len(predicted):
            raise ValueError(
                f"{' '.join(words)!r} has {len(words)} words, but {len(gold)} gold and {len(predicted)} "
                "predicted tags: give one tag for each word"
            )
        for pair in _pairs(spans(gold), spans(predicted)):
            type_, first, last = pair[0] or pair[1]  # type: ignore[misc]  # one of them is there
            rows = {"overall": "all", "type": type_, "length": _LENGTHS[bisect_left(LONGEST, len(words))]}
            if seen is not None:
                rows["text"] = "seen" if tuple(words[first : last + 1]) in seen else "unseen"
            for table, row in rows.items():
                tables[table].setdefault(row, Counts()).add(_outcome(*pair))
    tables["type"] = dict(sorted(tables["type"].items()))
    return tables


def as_markdown(tables: Mapping[str, Mapping[str, Counts]]) -> str:
    """
    The result of [`analyse`](#analyse) as one Markdown table, with F1 in per cent.
    """
    columns = ["entities", *(column.replace("_", " ") for column in Counts().as_dict()), "F1"]
    lines = []
    for table, rows in tables.items():
        for row, counts in rows.items():
            name = row if table == "overall" else f"{table} {row}"
            lines.append([name, *map(str, counts.as_dict().values()), f"{100 * counts.f1:.1f}"])
    return markdown_table(columns, lines)


def _entity_texts(words: Sequence[str], tags: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[first : last + 1]) for _, first, last in spans(tags)]


def _pairs(gold: Sequence[Span], predicted: Sequence[Span]) -> list[Pair]:
    alone = list(predicted)
    pairs: list[Pair] = []
    for entity in gold:
        partner = next((other for other in alone if _comparable(entity, other)), None)
        if partner is not None:
            alone.remove(partner)
        pairs.append((entity, partner))
    return pairs + [(None, entity) for entity in alone]


def _comparable(gold: Span, predicted: Span) -> bool:
    # Entities of one side never overlap, so one with the same words is the only one that overlaps at all.
    overlap = gold[1] <= predicted[2] and predicted[1] <= gold[2]
    return gold[1:] == predicted[1:] or (overlap and gold[0] == predicted[0])


def _outcome(gold: Optional[Span], predicted: Optional[Span]) -> str:
    if gold == predicted:
        return "correct"
    if predicted is None:
        return "missed"
    if gold is None:
        return "spurious"
    return "wrong_boundary" if gold[0] == predicted[0] else "wrong_type"
