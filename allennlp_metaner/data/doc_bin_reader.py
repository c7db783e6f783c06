"""The reader for spaCy's DocBin (`.spacy`): documents with sentences and entities."""

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.data import DatasetReader, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr

from allennlp_metaner.data.lines import open_bytes
from allennlp_metaner.data.sentence_reader import Labelled, SentenceReader

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span


@DatasetReader.register("ner_doc_bin")
class DocBinReader(SentenceReader):
    """
    Reads the documents of a DocBin, sentence by sentence; one without sentences is a single sentence. Words
    are the tokens of the document that are not blank, entities are its `ents`. Where nothing is known of a
    document's entities, no tags are known.

    Instances are those of [`SentenceReader`](./sentence_reader.md#sentencereader).

    Registered as a `DatasetReader` with name "ner_doc_bin".

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    label_map : `Dict[str, str]`, optional (default = `None`)
        New names of entity types; "O" drops a type.
    max_instances : `int`, optional (default = `None`)

    # Raises

    `ConfigurationError`, naming the argument or the file.
    """

    EXPECTED = "a DocBin with documents that are not empty"

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        label_map: Optional[dict[str, str]] = None,
        max_instances: Optional[int] = None,
    ) -> None:
        super().__init__(token_indexers, label_map=label_map, max_instances=max_instances)

    def _sentences(self, file_path: PathOrStr) -> Iterator[Labelled]:
        for number, doc in enumerate(read_docs(file_path), start=1):
            tags = _tags(doc)
            sentences = doc.sents if doc.has_annotation("SENT_START") else [doc[:]]
            for sentence in sentences:
                words, found = _words_and_tags(sentence, tags)
                if words:
                    place = f"{file_path}: document {number}"
                    yield Labelled(place, words, None if found is None else self._bio(found))


def read_docs(file_path: PathOrStr) -> "Iterator[Doc]":
    """
    The documents of a DocBin.

    # Raises

    `ConfigurationError`, if the file cannot be read, or is none.
    """
    import spacy
    from spacy.tokens import DocBin

    try:
        with open_bytes(cached_path(file_path)) as file:
            content = file.read()
    except OSError as error:
        raise ConfigurationError(f"{file_path}: cannot be read ({error}). Check the path") from error
    try:
        docs = DocBin().from_bytes(content)
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{file_path}: is no DocBin of spaCy ({error}). Give what `DocBin.to_disk` or "
            "`spacy convert` wrote"
        ) from error
    return iter(docs.get_docs(spacy.blank("xx").vocab))


def _tags(doc: "Doc") -> Optional[list[str]]:
    """The BIO tag of each token, blank ones included; `None`, if there are none."""
    if not doc.has_annotation("ENT_IOB"):
        return None
    return [f"{token.ent_iob_}-{token.ent_type_}" if token.ent_type_ else "O" for token in doc]


def _words_and_tags(sentence: "Span", tags: Optional[list[str]]) -> tuple[list[str], Optional[list[str]]]:
    words, kept = [], []
    begins = False
    for token in sentence:
        tag = "O" if tags is None else tags[token.i]
        # An entity may begin with a blank, which is no word, or in the sentence before.
        begins = begins or tag.startswith("B") or token.i == sentence.start
        if not token.is_space:
            words.append(token.text)
            kept.append(f"B{tag[1:]}" if begins and tag != "O" else tag)
            begins = False
    return words, None if tags is None else kept
