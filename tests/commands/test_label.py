"""`allennlp metaner-label`: every format in and out, errors, and going on after an interruption."""

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path

import pytest
import spacy
from allennlp.common.checks import ConfigurationError
from spacy.tokens import DocBin

from allennlp_metaner.commands import label
from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.doc_bin_reader import DocBinReader
from allennlp_metaner.data.json_reader import JsonLinesReader
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.data.sentence_reader import SentenceReader
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.name_tagger import NameTagger
from tests.commands.conftest import Command
from tests.tagging.conftest import CapitalsBackend


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> CapitalsBackend:
    """The command with a quick backend in place of an archive."""
    found = CapitalsBackend()

    def load(archive: str, threshold: float, language: str, sentences: str, **_: object) -> NameTagger:
        assert archive == "model"
        return NameTagger(Engine(found, threshold, language, sentences))

    monkeypatch.setattr(label.NameTagger, "load", load)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of each kind, six documents in all."""
    folder = tmp_path / "in"
    (folder / "inside").mkdir(parents=True)
    (folder / "a.txt").write_bytes("then Élise Novak left.\r\n\r\nthe <b> in Paris".encode())
    (folder / "b.jsonl").write_text(
        '{"id": 7, "text": "so Peter left."}\n\n{"words": ["so", "Anna", "left"], "tags": [1]}\n', "utf-8"
    )
    (folder / "inside/c.conll").write_text("so\tO\nMaria\tB-PER\n\n-DOCSTART-\n\nrain\tO\n", "utf-8")
    (folder / "inside/d").write_text("nothing", "utf-8")
    (folder / ".hidden").write_text("no Name", "utf-8")
    return folder


NAMES = ["Élise Novak", "Paris", "Peter", "Anna", "Maria"]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_json_lines(command: Command, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new/names.jsonl"
    command("metaner-label", "model", folder, "-o", output)
    found = lines(output)
    assert [entity["text"] for line in found for entity in line["entities"]] == NAMES  # type: ignore[attr-defined]
    assert list(found[0]) == ["file", "text", "entities"]
    assert found[0]["file"] == str(folder / "a.txt")
    assert found[1] == {
        "id": 7,
        "text": "so Peter left.",
        "entities": [{"text": "Peter", "label": "LOC", "start": 3, "end": 8, "confidence": 0.5}],
    }
    assert found[2]["tags"] == [1] and found[2]["words"] == ["so", "Anna", "left"]
    assert len(found) == 6
    assert [path.name for path in output.parent.iterdir()] == ["names.jsonl"]
    command("metaner-label", "model", folder, "-o", output, "--details", "--force")
    assert list(lines(output)[0]) == ["file", "text", "entities", "sentences"]


def test_columns(command: Command, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "names.conll"
    command("metaner-label", "model", folder, "-o", output)
    read = [words_and_tags(instance) for instance in ColumnReader(separator="\t").read(str(output))]
    assert read[0] == (["then", "Élise", "Novak", "left", "."], ["O", "B-PER", "I-PER", "O", "O"])
    assert len(read) == 7
    # And the other way: what comes out goes in.
    again = tmp_path / "again.conll"
    command("metaner-label", "model", output, "-o", again)
    assert again.read_text("utf-8") == output.read_text("utf-8")


def test_csv(command: Command, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "names.csv"
    command("metaner-label", "model", folder, "-o", output)
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == NAMES
    text = (folder / "a.txt").read_bytes().decode()
    assert text[int(rows[0]["start"]) : int(rows[0]["end"])] == NAMES[0]
    assert [row["document"] for row in rows][2:] == [
        f"{folder / 'b.jsonl'}:1",
        f"{folder / 'b.jsonl'}:3",
        f"{folder / 'inside/c.conll'}:1",
    ]


def test_doc_bin(command: Command, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "names.spacy"
    command("metaner-label", "model", folder, "-o", output)
    docs = list(DocBin().from_disk(output).get_docs(spacy.blank("xx").vocab))
    assert [entity.text for doc in docs for entity in doc.ents] == NAMES
    assert docs[0].text == (folder / "a.txt").read_bytes().decode()
    assert [len(list(doc.sents)) for doc in docs] == [2, 1, 1, 1, 1, 1]


def test_what_is_written_can_be_read_as_labels(command: Command, folder: Path, tmp_path: Path) -> None:
    """The three formats that hold labels say the same, and raw formats of input lead to the same names."""
    # Fields of the input that look like labels would be taken for them.
    (folder / "b.jsonl").write_text(
        '{"text": "so Peter left."}\n{"words": ["so", "Anna", "left"]}\n', "utf-8"
    )
    found = {}
    readers: dict[str, SentenceReader] = {
        "jsonl": JsonLinesReader(),
        "conll": ColumnReader(separator="\t"),
        "spacy": DocBinReader(),
    }
    for ending, reader in readers.items():
        output = tmp_path / f"names.{ending}"
        command("metaner-label", "model", folder, "-o", output)
        sentences = [words_and_tags(instance) for instance in reader.read(str(output))]
        # JSON lines have documents, of one or two sentences.
        found[ending] = [pair for words, tags in sentences for pair in zip(words, tags or [], strict=True)]
    assert found["conll"] == found["spacy"] == found["jsonl"]
    assert [word for word, tag in found["conll"] if tag[0] == "B"] == [name.split()[0] for name in NAMES]


@pytest.mark.parametrize("ending", ["spacy", "json", "csv", "conllu"])
def test_formats_of_input(command: Command, folder: Path, tmp_path: Path, ending: str) -> None:
    source, output = tmp_path / f"in.{ending}", tmp_path / "out.jsonl"
    if ending == "spacy":
        command("metaner-label", "model", folder / "b.jsonl", "-o", source)
    elif ending == "json":
        source.write_text(
            '[\n{"id": 7, "text": "so Peter left."},\n{"words": ["so", "Anna", "left"]}]', "utf-8"
        )
    elif ending == "csv":
        source.write_text('id,text\n7,so Peter left.\n\n8,"so\nAnna, left"\n', "utf-8")
    else:
        source.write_text("# text = Peter\n# Ann\n1\tso\n2\tPeter\n\n#\tso\n2\tAnna\n", "utf-8")
    command("metaner-label", "model", source, "-o", output, "--word-column", 1)
    found = lines(output)
    assert [[entity["text"] for entity in line["entities"]] for line in found] == [["Peter"], ["Anna"]]  # type: ignore[attr-defined]
    first = {key: value for key, value in found[0].items() if key not in ("text", "entities")}
    place = {"file": str(source), "document": 1}
    assert first == {"spacy": place, "json": {"id": 7}, "csv": {"id": "7"}, "conllu": {}}[ending]


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        ("csv", "id,body\n1,a\n", "no column text in the first line, which has id, body"),
        ("csv", "text\na,b\n", r"in.csv:2: 2 cells"),
        ("json", "[1,", "in.json: Expecting value"),
        ("spacy", "no", "is no DocBin"),
    ],
)
def test_errors_of_formats_of_input(
    command: Command, tmp_path: Path, ending: str, content: str, message: str
) -> None:
    (tmp_path / f"in.{ending}").write_text(content, "utf-8")
    with pytest.raises(ConfigurationError, match=message):
        command("metaner-label", "model", tmp_path / f"in.{ending}", "--fail-fast")


def test_html(command: Command, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "names.html"
    command("metaner-label", "model", folder, "-o", output)
    page = output.read_text("utf-8")
    assert page.count("<mark") == 5 and page.count("<h2>") == 6
    # Back again: what is marked, and the texts.
    marked = re.findall(r"<mark[^>]*>\s*(.*?)\s*<span[^>]*>(\w+) [\d.]+</span>\s*</mark>", page, re.DOTALL)
    assert [unescape(text) for text, _ in marked] == NAMES
    command("metaner-label", "model", folder, "-o", tmp_path / "names.jsonl")
    entities = [entity for line in lines(tmp_path / "names.jsonl") for entity in line["entities"]]  # type: ignore[attr-defined]
    assert [label for _, label in marked] == [entity["label"] for entity in entities]
    assert "&lt;b&gt;" in page and "<b>" not in page and "://" not in page and "<script" not in page


def test_text_can_be_read_again(command: Command, folder: Path, tmp_path: Path) -> None:
    command("metaner-label", "model", folder, "-o", tmp_path / "names.txt")
    content = (tmp_path / "names.txt").read_bytes().decode()
    assert re.findall(r"\[([^]]+) (?:PER|LOC)\]", content) == NAMES
    texts = re.sub(r"\[([^]]+) (?:PER|LOC)\]", r"\1", content)
    assert texts.startswith((folder / "a.txt").read_bytes().decode())


def test_screen(command: Command, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("metaner-label", "model", folder / "b.jsonl")
    captured = capsys.readouterr()
    assert captured.out == "so [Peter LOC] left.\nso [Anna LOC] left\n"
    assert captured.err == ""
    command("metaner-label", "model", folder / "b.jsonl", "--format", "csv", "--threshold", "0.6")
    assert capsys.readouterr().out == "document,start,end,text,label,confidence\n"


def test_colour(
    command: Command, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    command("metaner-label", "model", folder / "b.jsonl")
    assert "so \x1b[32mPeter LOC\x1b[0m left." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ([], "so Peter left.\n"),
        (["--input-format", "jsonl"], '{"text": "so Peter left."}\n'),
        (["--input-format", "columns", "--word-column", "1"], "1 so\n2 Peter\n3 left.\n"),
    ],
)
def test_standard_input(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    content: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    command("metaner-label", "model", "-", *arguments)
    assert capsys.readouterr().out.strip() == "so [Peter LOC] left."


def test_errors_are_named_and_end_nothing(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    bad = ["{", "3", '{"id": 5}', '{"words": ["a", 1]}', '{"text": "it went boom"}', '{"text": "\\ud800 Al"}']
    source.write_text("\n".join(['{"text": "Anna"}', *bad, '{"text": ""}']), "utf-8")
    (tmp_path / "latin.txt").write_bytes("Élise vécut à Málaga.".encode("latin-1"))
    output = tmp_path / "out.jsonl"
    command("metaner-label", "model", source, tmp_path / "latin.txt", "-o", output)
    found = lines(output)
    assert ["error" in line for line in found] == [False, True, True, True, True, True, False, False, True]
    assert found[3]["id"] == 5
    assert found[6]["text"] == "\ud800 Al"
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0].removeprefix(str(tmp_path)) for line in shown] == [
        *[f"/in.jsonl:{number}" for number in range(2, 7)],
        "/latin.txt",
        "6 documents could not be labelled",
    ]
    assert "not decodable" in shown[5]
    with pytest.raises(ConfigurationError, match=r"in.jsonl:2: the line is '{', which is not JSON"):
        command("metaner-label", "model", source, "--fail-fast")


def test_what_json_lines_carry_beside_the_text(command: Command, tmp_path: Path) -> None:
    """Whatever it is: the lines after it are labelled, and what is written is JSON."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    deep = [f'{{"text": "Anna", "x": {"[" * depth}{"]" * depth}}}' for depth in (90, 200, 400, 800)]
    source.write_text("\n".join([*deep, '{"text": "Anna", "x": [NaN, 1e999]}', '{"text": "Anna"}']), "utf-8")
    command("metaner-label", "model", source, "-o", output)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = [json.loads(line, parse_constant=refuse) for line in output.read_text("utf-8").splitlines()]
    assert ["error" in line for line in found] == [False, True, True, True, False, False]
    assert found[4]["x"] == [None, None]


def test_an_interrupted_run_goes_on(
    command: Command,
    backend: CapitalsBackend,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, output = tmp_path / "whole.jsonl", tmp_path / "names.jsonl"
    command("metaner-label", "model", folder, "-o", expected, "--details")

    def interrupted(documents: Iterable[object], *_: object) -> Iterator[object]:
        for number, document in enumerate(documents):
            if number == 3:
                raise KeyboardInterrupt
            yield document

    run = ["metaner-label", "model", folder, "-o", output, "--details"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(label, "_with_bar", interrupted)
        command(*run)
    part = tmp_path / "names.jsonl.part"
    assert not output.exists() and len(lines(part)) == 4
    with part.open("a", encoding="utf-8") as file:
        file.write('{"text": "half a li')
    with pytest.raises(
        ConfigurationError, match=r"names.jsonl.part is of a run with other settings: threshold"
    ):
        command(*run, "--threshold", "0.9")
    backend.batches.clear()
    command(*run)
    assert output.read_bytes() == expected.read_bytes()
    assert sum(map(len, backend.batches)) == 3  # the sentences of the last three documents
    assert not part.exists()


def test_refused(command: Command, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing: there is no such file"):
        command("metaner-label", "model", tmp_path / "missing")
    with pytest.raises(ConfigurationError, match=r"names.doc: the name does not tell the format"):
        command("metaner-label", "model", folder, "-o", tmp_path / "names.doc")
    with pytest.raises(ConfigurationError, match=r"a.txt is there already"):
        command("metaner-label", "model", folder, "-o", folder / "a.txt")
    with pytest.raises(ConfigurationError, match="give an output file"):
        command("metaner-label", "model", folder, "--format", "spacy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="no files in this folder"):
        command("metaner-label", "model", tmp_path / "empty")
    assert not list(tmp_path.glob("*.part"))


def test_bytes_of_another_encoding_end_nothing(command: Command, tmp_path: Path) -> None:
    bad, output = "Málaga".encode("latin-1"), tmp_path / "out.jsonl"
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "Anna"}\n{"text": "%s"}\n{"text": "Eve"}\n' % bad)
    (tmp_path / "b.conll").write_bytes(b"Anna\tO\n\n%s\tO\n\nEve\tO\nleft\n" % bad)
    command("metaner-label", "model", tmp_path / "a.jsonl", tmp_path / "b.conll", "-o", output)
    found = lines(output)
    assert [line["text"] for line in found] == ["Anna", "", "Eve", "Anna", "", "Eve left"]
    assert (
        [line.get("error", "").split(": not ")[0][:60] for line in found]
        == [  # type: ignore[index, attr-defined]
            *["", f"{tmp_path}/a.jsonl:2"[:60], "", "", f"{tmp_path}/b.conll:3"[:60], ""]
        ]
    )
    assert "perhaps 'latin-1'" in found[1]["error"]  # type: ignore[operator]


def test_bytes_from_standard_input(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = codecs.BOM_UTF8 + b'{"text": "Anna"}\n{"text": "\xff"}\n{"text": "Eve"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    command("metaner-label", "model", "-", "--input-format", "jsonl")
    shown = capsys.readouterr()
    assert shown.out == "[Anna LOC]\n\n[Eve LOC]\n"
    assert "-:2: not decodable as encoding='utf-8'" in shown.err


def test_comments_are_no_words(command: Command, tmp_path: Path) -> None:
    path, output = tmp_path / "in.conllu", tmp_path / "out.jsonl"
    path.write_text(
        "# sent_id = 1\n# text = so Anna left\n1\tso\n2\tAnna\n\n# id 5 domain=es\n1 # _ _\n2 so _ _\n\n"
        "# _\n1 _\n\n# only = this\n\n1\n",
        "utf-8",
    )
    command("metaner-label", "model", path, "--word-column", "1", "-o", output)
    found = lines(output)
    assert [line["text"] for line in found] == ["so Anna", "# so", "_ _", ""]
    assert "in.conllu:15: line 15, '1', has no word in column 1" in found[3]["error"]  # type: ignore[operator]


@pytest.mark.parametrize("format", ["jsonl", "text", "conll", "csv", "html"])
def test_what_the_output_cannot_hold(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "\\ud83d É\\ud800l 🙂 left"}\n{"words": ["Eve"]}\n', "utf-8")
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    command("metaner-label", "model", source, "--format", format)
    screen.seek(0)
    shown = screen.read()
    assert "Eve" in shown
    output = tmp_path / "out"
    command("metaner-label", "model", source, "--format", format, "-o", output)
    written = output.read_text("utf-8")
    assert "Eve" in written
    if format == "jsonl":
        assert [json.loads(line) for line in shown.splitlines()] == lines(output)
        assert lines(output)[0]["text"] == "\ud83d É\ud800l 🙂 left"
        assert "\\ud83d É\\ud800l 🙂" in written
    else:
        assert "É" in written and "É" not in shown and "?" in shown
