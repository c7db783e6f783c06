"""The reader for labelled sentences as JSON: tokens with tags, or texts with spans in characters."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr

from allennlp_metaner.data.character_spans import MISALIGNED, CharacterSpan, from_utf16, tags_of_spans
from allennlp_metaner.data.json_sentences import WORD_FIELDS, parse_json
from allennlp_metaner.data.lines import UNDECODED, read_lines
from allennlp_metaner.data.raw_text import tokenize
from allennlp_metaner.data.sentence_reader import Labelled, SentenceReader, naming
from allennlp_metaner.data.sentence_splitting import SENTENCE_MODES, split_sentences

TAG_FIELDS = ("ner_tags", "tags")
SPAN_FIELDS = ("spans", "entities", "label", "labels")
START_FIELDS, END_FIELDS = ("start", "start_offset"), ("end", "end_offset")
ANNOTATION_FIELDS = ("annotations", "completions")

Fields = dict[str, Any]
WordsAndTags = tuple[list[str], Optional[list[str]]]


@DatasetReader.register("ner_json_lines")
class JsonLinesReader(SentenceReader):
    """
    Reads a sentence a line, or a file that is one JSON list of them. A sentence is either as the Hugging Face
    hub has them, `words` or `tokens`, and `ner_tags` (or `tags`), which are names or numbers; or as
    annotation tools export them, a text with spans in characters, which is split into words as raw text is in
    prediction:

    - Prodigy: `{"text": "...", "spans": [{"start": 0, "end": 4, "label": "PER"}]}`;
    - doccano: `{"text": "...", "label": [[0, 4, "PER"]]}`, or
      `{"text": "...", "entities": [{"start_offset": 0, "end_offset": 4, "label": "PER"}]}`;
    - Label Studio, JSON: `[{"data": {"text": "..."}, "annotations": [{"result": [{"value": {"start": 0,
      "end": 4, "text": "Anna", "labels": ["PER"]}}]}]}]`. The first annotation that was not cancelled counts;
      a text without any has no tags. The text is `text`, or the only string of `data`;
    - Label Studio, JSON-MIN: `[{"text": "...", "label": [{"start": 0, "end": 4, "labels": ["PER"]}]}]`.

    Instances are those of [`SentenceReader`](./sentence_reader.md#sentencereader).

    Registered as a `DatasetReader` with name "ner_json_lines".

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    tag_names : `List[str]`, optional (default = `None`)
        The names of the tags, if the file has numbers: number 0 is the first.
    scheme : `str`, optional (default = `"BIO"`)
        The tag scheme of the file, see [`SCHEMES`](./tag_schemes.md#schemes).
    label_map : `Dict[str, str]`, optional (default = `None`)
        New names of entity types; "O" drops a type.
    misaligned : `str`, optional (default = `"refuse"`)
        What happens to a span that begins or ends inside of a word: "refuse" raises an error that names its
        place, "snap" gives it the whole word.
    sentences : `str`, optional (default = `"whole"`)
        What texts with spans are: "whole": a sentence each; "split", "lines": documents, which are cut as
        [`split_sentences`](./sentences.md#split_sentences) does it, but never inside of an entity.
    language : `str`, optional (default = `"xx"`)
        That of the texts, for "split".
    encoding : `str`, optional (default = `"utf-8"`)
    max_instances : `int`, optional (default = `None`)

    # Raises

    `ConfigurationError`, naming the argument, `file:line` or, in a list, the item.
    """

    EXPECTED = "a JSON object a line, or a JSON list of objects"

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        tag_names: Optional[list[str]] = None,
        scheme: str = "BIO",
        label_map: Optional[dict[str, str]] = None,
        misaligned: str = "refuse",
        sentences: str = "whole",
        language: str = "xx",
        encoding: str = "utf-8",
        max_instances: Optional[int] = None,
    ) -> None:
        super().__init__(token_indexers, encoding, scheme, label_map, max_instances)
        if misaligned not in MISALIGNED:
            raise ConfigurationError(f"misaligned={misaligned!r} is not one of {', '.join(MISALIGNED)}")
        self._tag_names = tag_names
        if sentences not in SENTENCE_MODES:
            raise ConfigurationError(f"sentences={sentences!r} is not one of {', '.join(SENTENCE_MODES)}")
        self._misaligned = misaligned
        self._mode = sentences
        self._language = language

    def _sentences(self, file_path: PathOrStr) -> Iterator[Labelled]:
        for place, content in json_items(read_lines(file_path, self._encoding), file_path):
            with naming(place):
                found = self._labelled(parse_json(content) if isinstance(content, str) else content)
            for words, tags in found:
                yield Labelled(place, words, tags)

    def _labelled(self, fields: Any) -> list[WordsAndTags]:
        known = fields if isinstance(fields, dict) else {}
        words, tags = _first(known, WORD_FIELDS), _first(known, TAG_FIELDS)
        is_words = isinstance(words, list) and all(isinstance(word, str) and word.strip() for word in words)
        # What `metaner-label` made of words has these, and a text with spans.
        if is_words and (tags is not None or _first(known, SPAN_FIELDS) is None):
            return [(words, None if tags is None else self._bio(self._names(tags)))]
        return self._of_text(*_text_and_spans(fields))

    def _of_text(self, text: str, spans: Optional[list[Any]]) -> list[WordsAndTags]:
        places = split_sentences(text, self._language, self._mode)
        sentences = [
            [(word, start + first, start + last) for word, first, last in tokenize(text[start:end])]
            for start, end in places
        ]
        words = [[word for word, _, _ in sentence] for sentence in sentences]
        if spans is None:
            return [(sentence, None) for sentence in words] or [([], None)]
        found = [_character_span(span, text) for span in spans]
        # Spans have labels, not tags, so no scheme.
        mapped = [span._replace(label=self._label_map.get(span.label, span.label)) for span in found]
        kept = [span for span in mapped if span.label not in (None, "O")]
        offsets = [(start, end) for sentence in sentences for _, start, end in sentence]
        tags = iter(tags_of_spans(text, offsets, kept, self._misaligned))
        joined: list[WordsAndTags] = []
        for sentence in words:
            own = [next(tags) for _ in sentence]
            if joined and own[:1] and own[0].startswith("I-"):
                # An entity goes on: what looked like the end of the sentence was none.
                before, tags_before = joined.pop()
                sentence, own = before + sentence, (tags_before or []) + own
            joined.append((sentence, own))
        return joined or [([], [])]

    def _names(self, tags: list[Any]) -> list[str]:
        names = []
        for tag in tags:
            if isinstance(tag, int):
                known = self._tag_names or []
                if not 0 <= tag < len(known):
                    raise ValueError(f"the tag {tag} has no name in tag_names={self._tag_names}")
                tag = known[tag]
            names.append(str(tag))
        return names


def json_items(lines: Iterator[str], file_path: PathOrStr) -> Iterator[tuple[str, Any]]:
    """
    # Parameters

    lines : `Iterator[str]`
    file_path : `PathOrStr`
        Where they are from.

    # Returns

    `Iterator[tuple[str, Any]]`
        The place and the content of each line that is not blank, as a string; or, if the file is one JSON
        list, of each of its items. A file whose first line is a whole list, before others, has lines.

    # Raises

    `ConfigurationError`, if the file cannot be read, or begins like a list and is none.
    """
    numbered = enumerate(lines, start=1)
    start, filled = [], []
    for number, line in numbered:
        start.append((number, line))
        if line.strip():
            filled.append(line)
        if len(filled) == 2:
            break
    if filled and filled[0].lstrip().startswith("[") and not (len(filled) == 2 and _is_json(filled[0])):
        content = "\n".join(line for _, line in chain(start, numbered))
        if UNDECODED.search(content):
            raise ConfigurationError(f"{file_path}: has bytes of another encoding. Give the right one")
        with naming(str(file_path)):
            items = parse_json(content)
        yield from ((f"{file_path}: item {number}", item) for number, item in enumerate(items, start=1))
    else:
        yield from (
            (f"{file_path}:{number}", line) for number, line in chain(start, numbered) if line.strip()
        )


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _first(fields: Fields, names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _text_and_spans(fields: Any) -> tuple[str, Optional[list[Any]]]:
    """The text of an annotation tool, and its spans; `None`, if nobody has looked for any."""
    if isinstance(fields, dict) and isinstance(fields.get("data"), dict):
        return _label_studio(fields)
    text = fields.get("text") if isinstance(fields, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f'{json.dumps(fields)[:80]!r} should have {{"tokens": ["not", "empty"], "ner_tags": [...]}}, or '
            '{"text": "...", "spans": [{"start": 0, "end": 4, "label": "PER"}]}'
        )
    return text, _first(fields, SPAN_FIELDS) or []


def _label_studio(fields: Fields) -> tuple[str, Optional[list[Any]]]:
    data = fields["data"]
    texts = [value for value in data.values() if isinstance(value, str)]
    text = data.get("text", texts[0] if len(texts) == 1 else None)
    if not isinstance(text, str):
        raise ValueError(
            f"the fields of data, {', '.join(data)}, do not tell which is the text: call it text"
        )
    annotations = [
        found for found in _first(fields, ANNOTATION_FIELDS) or [] if not found.get("was_cancelled")
    ]
    if not annotations:
        return text, None
    values = [result.get("value", {}) for result in annotations[0]["result"]]
    # Choices and relations have no labels.
    return text, [value for value in values if "labels" in value]


def _character_span(given: Any, text: str) -> CharacterSpan:
    span, said = given, None
    if isinstance(span, dict):
        said = span.get("text")
        labels = span.get("labels")
        label = labels[0] if isinstance(labels, list) and len(labels) == 1 else span.get("label")
        span = [_first(span, START_FIELDS), _first(span, END_FIELDS), label]
    if isinstance(span, list) and len(span) == 3:
        start, end, label = span
        if isinstance(start, int) and isinstance(end, int) and isinstance(label, str):
            if isinstance(said, str) and text[start:end] != said:
                start, end = _by_utf16(text, start, end, said)
            return CharacterSpan(start, end, label)
    raise ValueError(f"{given!r} is no span: give start, end and one label")


def _by_utf16(text: str, start: int, end: int, said: str) -> tuple[int, int]:
    first, last = from_utf16(text, start, end)
    if text[first:last] != said:
        raise ValueError(
            f"the span {start}-{end} is {text[start:end]!r} in the text, but {said!r} by its own field "
            "'text'. Export the file again, or correct it"
        )
    return first, last
