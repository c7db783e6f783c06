"""Case studies: the sentences that two models label differently, and which of the two is right."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from allennlp_metaner.analysis.errors import Counts
from allennlp_metaner.data.tag_schemes import Span, spans

KINDS = {
    "fixed": "only the adapted model is right",
    "regressed": "only the base model is right",
    "changed": "both are wrong, in different ways",
    "unknown": "no gold entities are known",
}
"""How a case can end for a sentence, and what that means."""


class SupportSentence(NamedTuple):
    """A labelled source sentence, and its similarity to the sentence that it was retrieved for."""

    words: Sequence[str]
    tags: Sequence[str]
    similarity: float


class Case(NamedTuple):
    """
    A sentence with the tags of both models. Entities are those of conlleval's rules; tags that are not BIO
    count as `O`.

    # Parameters

    number : `int`
        Its place in the file, from 1.
    words : `Sequence[str]`
    gold : `Sequence[str]`, optional
        `None`, if not known.
    base : `Sequence[str]`
        The base model's tags, one for each word.
    adapted : `Sequence[str]`
        The adapted model's.
    support : `Sequence[SupportSentence]`, optional (default = `()`)
        What the adapted model was adapted to.
    """

    number: int
    words: Sequence[str]
    gold: Optional[Sequence[str]]
    base: Sequence[str]
    adapted: Sequence[str]
    support: Sequence[SupportSentence] = ()

    @property
    def kind(self) -> Optional[str]:
        """One of `KINDS`; `None`, if both models found the same entities."""
        base, adapted = spans(self.base), spans(self.adapted)
        if base == adapted:
            return None
        if self.gold is None:
            return "unknown"
        gold = spans(self.gold)
        return "fixed" if adapted == gold else "regressed" if base == gold else "changed"


@dataclass
class Differences:
    """
    What is different in a file.

    # Parameters

    cases : `List[Case]`
        The first sentences that differ.
    sentences : `int`
        The number of all sentences.
    kinds : `Counter[str]`
        The numbers of all those that differ, also if they are not among the `cases`.
    base, adapted : `Counts`, optional
        The entities that each model found in the sentences with gold tags, each either correct, missed or
        spurious, as conlleval counts them. `None`, if no sentence has gold tags.
    """

    cases: list[Case] = field(default_factory=list)
    sentences: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    base: Optional[Counts] = None
    adapted: Optional[Counts] = None

    @property
    def differing(self) -> int:
        return sum(self.kinds.values())


def find_differences(sentences: Iterable[Case], max_cases: int) -> Differences:
    """
    # Parameters

    sentences : `Iterable[Case]`
        All sentences of a file, those that do not differ too. They are not kept.
    max_cases : `int`
        How many of those that differ are kept.

    # Returns

    `Differences`
    """
    differences = Differences()
    for case in sentences:
        differences.sentences += 1
        if case.gold is not None:
            differences.base = _counted(differences.base, case.gold, case.base)
            differences.adapted = _counted(differences.adapted, case.gold, case.adapted)
        if (kind := case.kind) is not None:
            differences.kinds[kind] += 1
            if len(differences.cases) < max_cases:
                differences.cases.append(case)
    return differences


def missed(gold: Sequence[Span], predicted: Sequence[Span]) -> list[Span]:
    """The gold entities of which no word is in a predicted entity."""
    return [
        entity
        for entity in gold
        if not any(entity[1] <= other[2] and other[1] <= entity[2] for other in predicted)
    ]


def _counted(counts: Optional[Counts], gold: Sequence[str], predicted: Sequence[str]) -> Counts:
    counts = counts or Counts()
    right, found = set(spans(gold)), set(spans(predicted))
    counts.add("correct", len(right & found))
    counts.add("missed", len(right - found))
    counts.add("spurious", len(found - right))
    return counts
