"""Labelled sentences as JSON lines: tags by name and number, and spans of annotation tools."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader

import allennlp_metaner  # noqa: F401  # registers the reader
from allennlp_metaner.data.json_reader import json_items
from allennlp_metaner.data.lines import read_lines
from allennlp_metaner.data.sentence import words_and_tags

TEXT = "«Élise Novak» va a São-Luís."
WORDS = ["«", "Élise", "Novak", "»", "va", "a", "São-Luís", "."]
TAGS = ["O", "B-PER", "I-PER", "O", "O", "O", "B-LOC", "O"]
PLACES = [{"start": 1, "end": 12, "text": "Élise Novak"}, {"start": 19, "end": 27, "text": "São-Luís"}]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def read(folder: Path, *lines: Any, **arguments: Any) -> list[tuple[list[str], list[str] | None]]:
    path = folder / "data.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    reader = DatasetReader.by_name("ner_json_lines")(**arguments)
    return [words_and_tags(instance) for instance in reader.read(str(path))]


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ({"id": "0", "tokens": WORDS, "ner_tags": TAGS}, {}),
        ({"words": WORDS, "tags": [NAMES.index(tag) for tag in TAGS]}, {"tag_names": NAMES}),
        (
            {"tokens": WORDS, "ner_tags": ["O", "B-PER", "E-PER", *["O"] * 3, "S-LOC", "O"]},
            {"scheme": "BIOES"},
        ),
        (
            {"tokens": WORDS, "ner_tags": ["O", "B-PER", "L-PER", *["O"] * 3, "U-LOC", "O"]},
            {"scheme": "BILOU"},
        ),
        (
            {
                "text": TEXT,
                "spans": [
                    {"start": 1, "end": 12, "label": "PER", "token_start": 1},
                    {"start": 19, "end": 27, "label": "LOC"},
                ],
            },
            {},
        ),
        ({"id": 1, "text": TEXT, "label": [[19, 27, "LOC"], [1, 12, "PER"]]}, {}),
        (
            {
                "text": TEXT,
                "entities": [
                    {"id": 3, "start_offset": 1, "end_offset": 12, "label": "PER"},
                    {"id": 4, "start_offset": 19, "end_offset": 27, "label": "LOC"},
                ],
                "relations": [],
            },
            {},
        ),
        # Label Studio: JSON of one task, and JSON-MIN.
        (
            {
                "id": 1,
                "data": {"text": TEXT, "source": "page 3"},
                "annotations": [
                    {"was_cancelled": True, "result": []},
                    {
                        "id": 2,
                        "result": [
                            {"type": "labels", "value": {**PLACES[0], "labels": ["PER"]}, "id": "a"},
                            {"type": "choices", "value": {"choices": ["news"]}},
                            {"type": "labels", "value": {**PLACES[1], "labels": ["LOC"]}, "id": "b"},
                            {"type": "relation", "from_id": "a", "to_id": "b"},
                        ],
                    },
                ],
            },
            {},
        ),
        (
            {"text": TEXT, "label": [{**PLACES[0], "labels": ["PER"]}, {**PLACES[1], "labels": ["LOC"]}]},
            {},
        ),
        ({"text": TEXT, "label": [[3, 9, "PER"], [19, 22, "LOC"]]}, {"misaligned": "snap"}),
        ({"text": TEXT, "label": [[1, 12, "person"], [19, 27, "LOC"]]}, {"label_map": {"person": "PER"}}),
    ],
)
def test_forms(tmp_path: Path, line: dict[str, Any], arguments: dict[str, Any]) -> None:
    assert read(tmp_path, line, "", line, **arguments) == [(WORDS, TAGS)] * 2


def test_lines_of_which_the_first_is_a_list(tmp_path: Path) -> None:
    """They are no list, and the first is refused alone."""
    path = tmp_path / "lines.jsonl"
    path.write_text('["Anna", "left"]\n\n{"text": "Anna left"}\n', "utf-8")
    found = list(json_items(read_lines(path, "utf-8"), path))
    assert found == [(f"{path}:1", '["Anna", "left"]'), (f"{path}:3", '{"text": "Anna left"}')]
    path.write_text('\n[{"text": "Anna"},\n\n{"text": "left"}]\n', "utf-8")
    found = list(json_items(read_lines(path, "utf-8"), path))
    assert found == [(f"{path}: item 1", {"text": "Anna"}), (f"{path}: item 2", {"text": "left"})]


@pytest.mark.parametrize("indent", [None, 2])
def test_lists(tmp_path: Path, indent: int | None) -> None:
    items = [{"data": {"body": TEXT}, "annotations": [{"result": []}]}, {"data": {"body": TEXT}}]
    found = read(tmp_path, json.dumps(items, indent=indent))
    assert found == [(WORDS, ["O"] * len(WORDS)), (WORDS, None)]
    with pytest.raises(ConfigurationError, match=r"data.jsonl: item 3: .*'start': 0"):
        read(tmp_path, json.dumps([*items, {"text": "a", "label": [{"start": 0, "end": 1}]}], indent=indent))
    with pytest.raises(ConfigurationError, match=r"data.jsonl: Expecting"):
        read(tmp_path, "[1,")


def test_places_in_utf_16(tmp_path: Path) -> None:
    """Browsers count an emoji as two."""
    text = "\U0001f600 Ana va \U0001f600 a Faro."
    span = {"start": 3, "end": 6, "text": "Ana", "labels": ["PER"]}
    ((words, tags),) = read(tmp_path, {"text": text, "label": [span]})
    assert tags is not None and tags[words.index("Ana")] == "B-PER" and tags.count("O") == len(tags) - 1
    with pytest.raises(ConfigurationError, match=r"jsonl:1: the span 3-6 is 'na ' in the text, but 'Eva' by"):
        read(tmp_path, {"text": text, "label": [{**span, "text": "Eva"}]})


def test_documents_are_cut_into_sentences(tmp_path: Path) -> None:
    text = "Ana left. So did St.\n\nPaul of Faro. Rain."
    spans = [[0, 3, "PER"], [17, 26, "PER"], [30, 34, "LOC"]]
    line = {"text": text, "label": spans}
    assert read(tmp_path, line, sentences="split") == [
        (["Ana", "left", "."], ["B-PER", "O", "O"]),
        # The blank line inside of a name ends no sentence.
        (
            ["So", "did", "St.", "Paul", "of", "Faro", "."],
            ["O", "O", "B-PER", "I-PER", "O", "B-LOC", "O"],
        ),
        (["Rain", "."], ["O", "O"]),
    ]
    ((words, tags),) = read(tmp_path, line)
    assert [word for word, tag in zip(words, tags or [], strict=True) if tag == "B-LOC"] == ["Faro"]
    assert len(read(tmp_path, {"data": {"text": text}}, sentences="lines")) == 2


def test_dropped_types_may_overlap(tmp_path: Path) -> None:
    label = [[1, 12, "PER"], [7, 12, "surname"], [19, 27, "LOC"]]
    assert read(tmp_path, {"text": TEXT, "label": label}, label_map={"surname": "O"}) == [(WORDS, TAGS)]


def test_without_labels(tmp_path: Path) -> None:
    assert read(tmp_path, {"tokens": ["a"]}, {"text": "a b"}) == [(["a"], None), (["a", "b"], ["O", "O"])]


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"tokens": WORDS, "ner_tags": TAGS}).encode()))
    (instance,) = DatasetReader.by_name("ner_json_lines")().read(str(path))
    assert words_and_tags(instance) == (WORDS, TAGS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ([1], r"should have \{\"tokens\""),
        ({"tokens": ["a", ""], "ner_tags": ["O", "O"]}, "should have"),
        ({"tokens": ["a"], "ner_tags": ["O", "O"]}, "1 words but 2 tags"),
        ({"tokens": ["a"], "ner_tags": ["X"]}, "'X' is not a tag of scheme BIO"),
        ({"tokens": ["a"], "ner_tags": [3]}, "the tag 3 has no name in tag_names=None"),
        (
            {"text": TEXT, "label": [[3, 12, "PER"]]},
            r"the span 3-12 \('ise Novak', PER\) .*'Élise Novak'.*snap",
        ),
        ({"text": TEXT, "label": [[1, 12, "PER"], [7, 12, "LOC"]]}, "the span 7-12 .* shares a word"),
        ({"text": TEXT, "label": [[12, 99, "PER"]]}, "the span 12-99 .* has no words inside"),
        ({"text": "a  b", "label": [[1, 3, "PER"]]}, "the span 1-3 .* has no words inside"),
        ({"text": "a b", "label": [[0, "PER"]]}, r"\[0, 'PER'\] is no span"),
        ({"data": {"a": "x", "b": "y"}}, "the fields of data, a, b, do not tell which is the text"),
        ({"text": " "}, "a sentence has no words"),
    ],
)
def test_bad_lines(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"data\.jsonl:2: .*{message}"):
        read(tmp_path, {"tokens": ["a"]}, line)


@pytest.mark.parametrize("arguments", [{"scheme": "X"}, {"misaligned": "drop"}, {"sentences": "cut"}])
def test_bad_arguments(tmp_path: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="is not one of"):
        read(tmp_path, {"tokens": ["a"]}, **arguments)
    with pytest.raises(ConfigurationError, match="no sentence found"):
        read(tmp_path)
