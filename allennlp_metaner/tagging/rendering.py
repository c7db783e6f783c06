"""A labelled document as CoNLL columns, as a spaCy document and as HTML."""

import re
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Optional

from allennlp_metaner.data.characters import without_surrogates
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.page_style import PAGE_END, hue, page_start

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span
    from spacy.vocab import Vocab

    from allennlp_metaner.tagging.results import Document

REPLACEMENT = "\ufffd"
# What a line of columns cannot hold.
LINE_OR_COLUMN_END = re.compile(r"[\t\r\n]")
# A page's own, for light or dark screens, or else light enough for black text; the hue comes before it.
SATURATION_AND_LIGHTNESS = "var(--fill, 75% 84%)"
PAGE_STYLE = "h2 { margin: 1.5rem 0 0; font-size: 1rem; color: var(--quiet); } mark.entity { border: 0; }\n"
"""The style of pages with [`html`](#html) of documents."""
# Codes of ANSI: magenta, cyan and green. Others are yellow.
TERMINAL_COLORS = {"PER": 35, "ORG": 36, "LOC": 32}


def conll(document: "Document") -> str:
    """
    A line for each word, with the word, a tab and its BIO tag, and a blank line after each sentence: what the
    reader "ner_columns" reads with `separator` = "\\t". Blank words, and tabs and line ends inside of
    words, which only callers that split texts themselves can give, become U+FFFD.
    """
    lines = []
    for sentence in document.sentences:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            cell = LINE_OR_COLUMN_END.sub(REPLACEMENT, word)
            lines.append(f"{cell if cell.strip() else REPLACEMENT}\t{tag}\n")
        lines.append("\n")
    return "".join(lines)


def spacy_doc(document: "Document", vocab: "Optional[Vocab]" = None) -> "Doc":
    """
    A spaCy document whose text is the document's, character for character, with sentence starts, entities in
    `doc.ents`, and the confidence of each in `entity._.confidence`.
    Blanks other than a single space after a word are tokens, as spaCy's own are.

    # Parameters

    document : `Document`
    vocab : `Vocab`, optional (default = that of `spacy.blank("xx")`, the same for all documents)
    """
    from spacy.tokens import Doc, Span
    from spacy.util import get_words_and_spaces

    # spaCy keeps strings in UTF-8.
    text = without_surrogates(document.text)
    places = [place for sentence in document.sentences for place in sentence.offsets]
    # Callers may give words that are blank.
    words = [word for start, end in places if (word := text[start:end]).strip()]
    words, spaces = get_words_and_spaces(words, text)
    doc = Doc(_blank_vocab() if vocab is None else vocab, words=words, spaces=spaces)
    number_at = {token.idx: token.i for token in doc}
    for token in doc:
        token.is_sent_start = False
    entities = []
    for sentence in document.sentences:
        numbers = [
            number_at.get(start) if text[start:end].strip() else None for start, end in sentence.offsets
        ]
        known = [number for number in numbers if number is not None]
        if known:
            doc[known[0]].is_sent_start = True
        for (label, first, last), confidence in zip(spans(sentence.tags), sentence.confidences, strict=True):
            inside = [number for number in numbers[first : last + 1] if number is not None]
            if inside:
                span = Span(doc, inside[0], inside[-1] + 1, label=label)
                entities.append(spacy_span(span, confidence))
    doc.set_ents(entities)
    return doc


@cache
def _blank_vocab() -> "Vocab":
    """Made once, as it takes longer than a document."""
    import spacy

    return spacy.blank("xx").vocab


def spacy_span(span: "Span", confidence: float) -> "Span":
    """The span of spaCy, with its confidence."""
    if not span.has_extension("confidence"):
        span.set_extension("confidence", default=None)
    span._.confidence = confidence
    return span


def marked(document: "Document", color: bool = False) -> str:
    """
    The text with its entities in brackets, `[Anna Novak PER] left.`, or coloured for a terminal.
    """
    pieces, end = [], 0
    for entity in document.entities:
        name = f"[{entity.text} {entity.label}]"
        if color:
            name = f"\x1b[{TERMINAL_COLORS.get(entity.label, 33)}m{name[1:-1]}\x1b[0m"
        pieces += [document.text[end : entity.start], name]
        end = entity.end
    return without_surrogates("".join([*pieces, document.text[end:]]))


def html(document: "Document", page: bool = False) -> str:
    """
    The text with its entities marked, by displaCy.

    # Parameters

    document : `Document`
    page : `bool`, optional (default = `False`)
        Whether it is a whole page, for light and dark screens, or markup for one.
    """
    from spacy.displacy import EntityRenderer

    entities, colors = [], {}
    for entity in document.entities:
        # displaCy escapes texts, but not labels.
        label = escape(f"{entity.label} {entity.confidence:.2f}")
        entities.append({"start": entity.start, "end": entity.end, "label": label})
        colors[label] = f"hsl({hue(entity.label)} {SATURATION_AND_LIGHTNESS})"
    text = without_surrogates(document.text)
    rendered: str = EntityRenderer({"colors": colors}).render(
        [{"text": text, "ents": entities, "title": None}]
    )
    rendered = rendered.strip()
    return f"{page_start('Names', PAGE_STYLE)}{rendered}\n{PAGE_END}" if page else rendered
