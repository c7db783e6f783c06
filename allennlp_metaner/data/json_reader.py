"""The reader for labelled sentences as JSON lines: tokens with tags, or texts with spans in characters."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr
from allennlp.data.token_indexers import SingleIdTokenIndexer

from allennlp_metaner.data.coding import SCHEMES, map_labels, to_bio
from allennlp_metaner.data.lines import read_lines
from allennlp_metaner.data.raw_text import tokenize
from allennlp_metaner.data.sentence import sentence_instance

MISALIGNED = ("refuse", "snap")
TOKEN_FIELDS = ("tokens", "words")
TAG_FIELDS = ("ner_tags", "tags")
SPAN_FIELDS = ("spans", "entities", "label", "labels")
START_FIELDS, END_FIELDS = ("start", "start_offset"), ("end", "end_offset")

CharacterSpan = tuple[int, int, str]


@DatasetReader.register("ner_json_lines")
class JsonLinesReader(DatasetReader):
    """
    Reads a sentence a line, either as the Hugging Face hub has them, `tokens` (or `words`) and `ner_tags` (or
    `tags`), which are names or numbers; or as annotation tools export them, `text` with spans in characters:
    `{"spans": [{"start": 0, "end": 4, "label": "PER"}]}` (Prodigy), `{"label": [[0, 4, "PER"]]}` or
    `{"entities": [{"start_offset": 0, "end_offset": 4, "label": "PER"}]}` (doccano). Texts are split into
    words as raw text is in prediction.

    Instances are those of [`ColumnReader`](./column_reader.md#columnreader).

    Registered as a `DatasetReader` with name "ner_json_lines".

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    tag_names : `List[str]`, optional (default = `None`)
        The names of the tags, if the file has numbers: number 0 is the first.
    scheme : `str`, optional (default = `"BIO"`)
        The tag scheme of the file.
    label_map : `Dict[str, str]`, optional (default = `None`)
        New names of entity types; "O" drops a type.
    misaligned : `str`, optional (default = `"refuse"`)
        What happens to a span that begins or ends inside of a word: "refuse" raises an error that names its
        place, "snap" gives it the whole word.
    encoding : `str`, optional (default = `"utf-8"`)
    max_instances : `int`, optional (default = `None`)

    # Raises

    `ConfigurationError`, naming the argument or `file:line`.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        tag_names: Optional[list[str]] = None,
        scheme: str = "BIO",
        label_map: Optional[dict[str, str]] = None,
        misaligned: str = "refuse",
        encoding: str = "utf-8",
        max_instances: Optional[int] = None,
    ) -> None:
        super().__init__(max_instances=max_instances)
        if scheme not in SCHEMES:
            raise ConfigurationError(f"scheme={scheme!r} is not one of {', '.join(SCHEMES)}")
        if misaligned not in MISALIGNED:
            raise ConfigurationError(f"misaligned={misaligned!r} is not one of {', '.join(MISALIGNED)}")
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}
        self._tag_names = tag_names
        self._scheme = scheme
        self._label_map = label_map or {}
        self._misaligned = misaligned
        self._encoding = encoding

    def _read(self, file_path: PathOrStr) -> Iterator[Instance]:
        found = False
        for number, line in enumerate(read_lines(file_path, self._encoding), start=1):
            if line.strip():
                try:
                    yield self.text_to_instance(*self._sentence(line))
                except (ValueError, ConfigurationError) as error:
                    message = error.message if isinstance(error, ConfigurationError) else error
                    raise ConfigurationError(f"{file_path}:{number}: {message}") from error
                found = True
        if not found:
            raise ConfigurationError(f"{file_path}: no sentence found; give a JSON object a line")

    def text_to_instance(self, words: Sequence[str], tags: Optional[Sequence[str]] = None) -> Instance:
        """See [`sentence_instance`](./sentence.md#sentence_instance)."""
        return sentence_instance(words, tags)

    def apply_token_indexers(self, instance: Instance) -> None:
        """
        Sets the token indexers of the field `tokens`.
        """
        instance["tokens"].token_indexers = self._token_indexers  # type: ignore[attr-defined]

    def _sentence(self, line: str) -> tuple[list[str], Optional[list[str]]]:
        fields = json.loads(line)
        words = _first(fields, TOKEN_FIELDS) if isinstance(fields, dict) else None
        if isinstance(words, list) and all(isinstance(word, str) and word.strip() for word in words):
            tags = _first(fields, TAG_FIELDS)
            return words, None if tags is None else self._mapped(to_bio(self._names(tags), self._scheme))
        text = fields.get("text") if isinstance(fields, dict) else None
        if not isinstance(text, str):
            raise ValueError(
                f'{line[:80]!r} should have {{"tokens": ["not", "empty"], "ner_tags": [...]}}, or '
                '{"text": "...", "spans": [{"start": 0, "end": 4, "label": "PER"}]}'
            )
        tokens = tokenize(text)
        spans = [_character_span(span) for span in _first(fields, SPAN_FIELDS) or []]
        tags = self._tags_of_spans(text, [(start, end) for _, start, end in tokens], spans)
        return [word for word, _, _ in tokens], self._mapped(tags)

    def _mapped(self, tags: list[str]) -> list[str]:
        return map_labels(tags, self._label_map)

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

    def _tags_of_spans(
        self, text: str, offsets: Sequence[tuple[int, int]], spans: Sequence[CharacterSpan]
    ) -> list[str]:
        tags = ["O"] * len(offsets)
        for start, end, label in sorted(spans):
            inside = [n for n, (first, last) in enumerate(offsets) if first < end and last > start]
            place = f"the span {start}-{end} ({text[start:end]!r}, {label})"
            if not inside or not 0 <= start < end <= len(text):
                raise ValueError(f"{place} has no words inside")
            if self._misaligned == "refuse" and (offsets[inside[0]][0], offsets[inside[-1]][1]) != (
                start,
                end,
            ):
                words = text[offsets[inside[0]][0] : offsets[inside[-1]][1]]
                raise ValueError(
                    f"{place} does not begin and end with the words {words!r}. Correct it, or give "
                    "misaligned = 'snap'"
                )
            if any(tags[n] != "O" for n in inside):
                raise ValueError(f"{place} shares a word with another span")
            tags[inside[0] : inside[-1] + 1] = [f"B-{label}", *[f"I-{label}"] * (len(inside) - 1)]
        return tags


def _first(fields: dict[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if name in fields), None)


def _character_span(span: Any) -> CharacterSpan:
    if isinstance(span, dict):
        span = [_first(span, START_FIELDS), _first(span, END_FIELDS), span.get("label")]
    if isinstance(span, list) and len(span) == 3:
        start, end, label = span
        if isinstance(start, int) and isinstance(end, int) and isinstance(label, str):
            return start, end, label
    raise ValueError(f"{span!r} is no span: give start, end and label")
