"""A backend that needs no model, so that what is around it can be tested fast; and a real one."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from allennlp_metaner.tagging.backends import Tagged
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.results import Neighbor

NEIGHBOR = Neighbor(["Peter", "left"], ["B-PER", "O"], 0.5)


class CapitalsBackend:
    """
    Every run of words with a capital is a name, of type PER or, of one word, LOC. Remembers its batches, and
    refuses sentences with the word "boom".
    """

    def __init__(self) -> None:
        self.batches: list[list[list[str]]] = []

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        self.batches.append([list(words) for words in sentences])
        if any("boom" in words for words in sentences):
            raise RuntimeError("out of order")
        return [self._tagged(words) for words in sentences]

    def _tagged(self, words: Sequence[str]) -> Tagged:
        tags: list[str] = []
        for position, word in enumerate(words):
            inside = position > 0 and tags[-1] != "O"
            tags.append("O" if not word[:1].isupper() else "I-PER" if inside else "B-PER")
        starts = [position for position, tag in enumerate(tags) if tag == "B-PER"]
        for position in starts:
            if tags[position + 1 : position + 2] != ["I-PER"]:
                tags[position] = "B-LOC"
        # Names that stand further to the right are less sure.
        return Tagged(tags, [1 / (1 + position) for position in starts], [NEIGHBOR])


@pytest.fixture
def backend() -> CapitalsBackend:
    return CapitalsBackend()


@pytest.fixture
def tagger(backend: CapitalsBackend) -> NameTagger:
    return NameTagger(Engine(backend))


@pytest.fixture(scope="session")
def tiny_tagger(tiny_run: SimpleNamespace) -> NameTagger:
    return NameTagger.load(tiny_run.archive)
