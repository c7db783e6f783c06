"""What comes out: the entities of a document, and the sentences that led to them."""

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Optional

from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.tagging import rendering

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.vocab import Vocab


@dataclass(frozen=True)
class Entity:
    """
    A name in a document.

    # Parameters

    text : `str`
    label : `str`
        Its type, such as "PER".
    start : `int`
    end : `int`
        In characters of the document: `document.text[start:end] == text`.
    confidence : `float`
        The lowest of the probabilities that the model gives to the tags of its words, between 0 and 1.
    """

    text: str
    label: str
    start: int
    end: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that can be written as JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Neighbor:
    """
    A labelled source sentence that the model was adapted to before it labelled a sentence.

    # Parameters

    words : `list[str]`
    tags : `list[str]`
        BIO.
    similarity : `float`
        The cosine of both sentences' vectors.
    """

    words: list[str]
    tags: list[str]
    similarity: float

    @property
    def text(self) -> str:
        """Its words, joined by blanks."""
        return " ".join(self.words)

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that can be written as JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Sentence:
    """
    A sentence of a document.

    # Parameters

    start : `int`
    end : `int`
        In characters of the document.
    words : `list[str]`
    offsets : `list[tuple[int, int]]`
        Start and end of each word in characters of the document.
    tags : `list[str]`
        The BIO tag of each word.
    confidences : `list[float]`
        Of its entities, in order.
    neighbors : `list[Neighbor]`
        The most similar first; none if the model was not adapted.
    """

    start: int
    end: int
    words: list[str]
    offsets: list[tuple[int, int]]
    tags: list[str]
    confidences: list[float]
    neighbors: list[Neighbor] = field(default_factory=list)

    def entities(self, text: str) -> list[Entity]:
        """Its entities, of which `text` is the document's text."""
        return [
            Entity(text[start:end], label, start, end, confidence)
            for (label, start, end), confidence in zip(self._places(), self.confidences, strict=True)
        ]

    def above(self, threshold: float) -> "Sentence":
        """
        Without the entities of which the confidence is below `threshold` or all words are blank, and with
        well-formed BIO tags: a model may continue what it did not begin.
        """
        tags, confidences = ["O"] * len(self.tags), []
        for (label, first, last), confidence in zip(spans(self.tags), self.confidences, strict=True):
            is_blank = not "".join(self.words[first : last + 1]).strip()
            if confidence >= threshold and not is_blank:
                tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
                confidences.append(confidence)
        return replace(self, tags=tags, confidences=confidences)

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that can be written as JSON."""
        return {
            "start": self.start,
            "end": self.end,
            "words": self.words,
            "tags": self.tags,
            "neighbors": [neighbor.to_dict() for neighbor in self.neighbors],
        }

    def _places(self) -> list[tuple[str, int, int]]:
        return [
            (label, self.offsets[first][0], self.offsets[last][1]) for label, first, last in spans(self.tags)
        ]


@dataclass(frozen=True)
class Document:
    """
    A document with its names.

    # Parameters

    text : `str`
    sentences : `list[Sentence]`
    name : `str`
        What messages call the document.
    meta : `dict[str, Any]`
        What the `Source` came with.
    error : `str`, optional (default = `None`)
        Why the document could not be labelled. It then has no sentences.
    """

    text: str
    sentences: list[Sentence]
    name: str = "document 1"
    meta: dict[str, Any] = field(default_factory=dict)
    error: Optional[str] = None

    @property
    def entities(self) -> list[Entity]:
        """The entities of all sentences, in the order of the text."""
        return [entity for sentence in self.sentences for entity in sentence.entities(self.text)]

    def above(self, threshold: float) -> "Document":
        """Without the entities of which the confidence is below `threshold`."""
        return replace(self, sentences=[sentence.above(threshold) for sentence in self.sentences])

    def to_dict(self, sentences: bool = True) -> dict[str, Any]:
        """
        As a dictionary that can be written as JSON.

        # Parameters

        sentences : `bool`, optional (default = `True`)
            Whether the sentences with their words, tags and neighbours are in it.
        """
        content: dict[str, Any] = {
            "text": self.text,
            "entities": [entity.to_dict() for entity in self.entities],
        }
        if sentences:
            content["sentences"] = [sentence.to_dict() for sentence in self.sentences]
        return content if self.error is None else {**content, "error": self.error}

    def state(self) -> dict[str, Any]:
        """All there is, for [`from_state`](#from_state), as a dictionary that can be written as JSON."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Document":
        """The document of a [`state`](#state)."""
        sentences = [
            Sentence(
                **{
                    **sentence,
                    "offsets": [(start, end) for start, end in sentence["offsets"]],
                    "neighbors": [Neighbor(**neighbor) for neighbor in sentence["neighbors"]],
                }
            )
            for sentence in state["sentences"]
        ]
        return cls(**{**state, "sentences": sentences})

    def to_conll(self) -> str:
        """See [`conll`](./rendering.md#conll)."""
        return rendering.conll(self)

    def to_spacy(self, vocab: "Optional[Vocab]" = None) -> "Doc":
        """See [`spacy_doc`](./rendering.md#spacy_doc)."""
        return rendering.spacy_doc(self, vocab)

    def to_html(self, page: bool = False) -> str:
        """See [`html`](./rendering.md#html)."""
        return rendering.html(self, page)

    def _repr_html_(self) -> str:
        """How a notebook shows the document."""
        return self.to_html()
