"""The spaCy component `metaner`: the names of a trained archive in `doc.ents`."""

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Optional

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import filter_spans

from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.rendering import spacy_span
from allennlp_metaner.tagging.results import Document


class MetanerComponent:
    """
    Sets `doc.ents` to the names of `doc.text`, whatever tokens and sentences the pipeline has: the same as
    everywhere else. A name that ends inside of a token takes all of the token. Each has its confidence in
    `entity._.confidence`.

    # Parameters

    tagger : `NameTagger`
    """

    def __init__(self, tagger: NameTagger) -> None:
        self._tagger = tagger

    def __call__(self, doc: Doc) -> Doc:
        """Label one document."""
        return _with_entities(doc, self._tagger.predict(doc.text))

    def pipe(self, stream: Iterable[Doc], batch_size: int = 32) -> Iterator[Doc]:
        """Label a stream, with so many sentences in a batch."""
        docs, others = tee(stream)
        found = self._tagger.pipe((doc.text for doc in others), batch_size, fail_fast=True)
        for doc, document in zip(docs, found, strict=True):
            yield _with_entities(doc, document)


@Language.factory(
    "metaner",
    assigns=["doc.ents"],
    default_config={"adapt": None, "threshold": 0.0, "language": None, "cuda_device": -1},
)
def make_metaner(
    nlp: Language,
    name: str,
    archive: str,
    adapt: Optional[bool],
    threshold: float,
    language: Optional[str],
    cuda_device: int,
) -> MetanerComponent:
    """
    The factory `metaner`. A pipeline that is saved keeps the path of the archive, not the archive.

    # Parameters

    nlp : `Language`
    name : `str`
    archive : `str`
        An archive or a serialization directory.
    adapt : `bool`, optional (default = `None`)
    threshold : `float`, optional (default = `0.0`)
    language : `str`, optional (default = that of the pipeline)
    cuda_device : `int`, optional (default = `-1`)
    """
    tagger = NameTagger.load(archive, adapt, threshold, language or nlp.lang or "xx", cuda_device=cuda_device)
    return MetanerComponent(tagger)


def _with_entities(doc: Doc, document: Document) -> Doc:
    spans = []
    for entity in document.entities:
        span = doc.char_span(entity.start, entity.end, label=entity.label, alignment_mode="expand")
        if span is not None:
            spans.append(spacy_span(span, entity.confidence))
    doc.set_ents(filter_spans(spans))
    return doc
