"""`allennlp metaner-neighbors`: the sentences that prediction would retrieve, and clear errors."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from tests.processes import RunningProcess, allennlp

ROOT = Path(__file__).parents[2]
LINES: list[dict[str, Any]] = [
    {"words": ["Peter", "Smith", "won", "the", "Paris", "Open", "."]},
    {"sentence": "María Muñoz visitó Málaga, ¿no?"},
    {"sentence": "王小明访问了北京。"},
]
POOL = "Peter NN B-PER\nSmith NN I-PER\nwon NN O\n\nIt NN O\nrained NN O\n\nParis NN B-LOC\n. NN O\n"

Command = Callable[..., None]


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "input.jsonl"
    path.write_text("".join(json.dumps(line) + "\n\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path, tiny_encoder: str) -> dict[str, Any]:
    """The part of an experiment that matters here. Nothing was trained with it."""
    (tmp_path / "pool.txt").write_text(POOL, "utf-8")
    indexer = {"type": "word_transformer", "model_name": tiny_encoder}
    base_reader = {"type": "ner_columns", "token_indexers": {"tokens": indexer}}
    encoder = {"model_name": tiny_encoder}
    reader = {
        "type": "pseudo_tasks",
        "base_reader": base_reader,
        "retriever": {"sentence_encoder": encoder, "use_cache": False},
    }
    return {
        "dataset_reader": reader,
        "validation_dataset_reader": {**reader, "pool_path": str(tmp_path / "pool.txt")},
    }


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "config.jsonnet"
    path.write_text(json.dumps(config), "utf-8")
    return path


def test_neighbors_of_an_archive_are_the_support_of_prediction(
    command: Command, tiny_run: SimpleNamespace, tiny_archive: Archive, tmp_path: Path
) -> None:
    output = tmp_path / "new/out.jsonl"
    command("metaner-neighbors", tiny_run.archive, write_lines(tmp_path, LINES), "--output-file", output)
    found = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    expected = Predictor.from_archive(tiny_archive).predict_batch_json(LINES)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == ["text", "words", "neighbors"]
        assert (ours["text"], ours["words"]) == (theirs["text"], theirs["words"])
        assert [(n["words"], n["tags"]) for n in ours["neighbors"]] == [
            (n["words"], n["tags"]) for n in theirs["support"]
        ]
        assert [n["similarity"] for n in ours["neighbors"]] == pytest.approx(
            [n["similarity"] for n in theirs["support"]], abs=1e-5
        )


def test_readable_and_from_a_config(
    command: Command, config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = write_lines(tmp_path, [{"sentence": "Peter Smith won"}, {"words": ["Paris", "."]}])
    command("metaner-neighbors", write_config(tmp_path, config), lines, "--num-neighbors", 3)
    first, second = capsys.readouterr().out.strip().split("\n\n")
    assert first.startswith("Peter Smith won\n  1.0000  [Peter Smith PER] won\n")
    assert second.startswith("Paris .\n  1.0000  [Paris LOC] .\n")
    similarities = [float(line.split()[0]) for line in first.splitlines()[1:]]
    assert len(similarities) == 3
    assert similarities == sorted(similarities, reverse=True)


def test_many_sentences_stay_in_order(command: Command, config: dict[str, Any], tmp_path: Path) -> None:
    texts = ["It rained" if number % 3 else "Paris ." for number in range(70)]
    lines = write_lines(tmp_path, [{"sentence": text} for text in texts])
    output = tmp_path / "out.jsonl"
    command("metaner-neighbors", write_config(tmp_path, config), lines, "--output-file", output)
    found = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [sentence["text"] for sentence in found] == texts
    assert [" ".join(sentence["neighbors"][0]["words"]) for sentence in found] == texts


def test_every_string_gets_an_answer(
    command: Command, config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "odd.jsonl", tmp_path / "found.jsonl"
    path.write_text(
        '\ufeff{"sentence": ""}\n{"words": ["Anna", "\\ud83d", ""]}\n{"words": []}\n', encoding="utf-8"
    )
    command("metaner-neighbors", write_config(tmp_path, config), path, "--output-file", output)
    found = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [sentence["text"] for sentence in found] == ["", "Anna \ud83d ", ""]
    assert [bool(sentence["neighbors"]) for sentence in found] == [False, True, False]
    command("metaner-neighbors", write_config(tmp_path, config), path)
    assert "Anna \ufffd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"sentence": "fine"}\n\n{"words": [1]}\n', r"bad\.jsonl:3: the line is .*should be"),
        (b'{"sentence": "fine"}\nplain text\n', r"bad\.jsonl:2: the line is 'plain text', which is not JSON"),
        (b'["a", "list"]\n', r"bad\.jsonl:1: the line is .*should be"),
        (b'{"sentence": "\xfc"}\n', r"bad\.jsonl:1: not decodable"),
        (b"\n \n", r"bad\.jsonl: no sentence found"),
    ],
)
def test_bad_input(command: Command, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    # Found before the archive is even looked for.
    with pytest.raises(ConfigurationError, match=message):
        command("metaner-neighbors", tmp_path / "missing.tar.gz", path)


def test_missing_files(command: Command, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.jsonl: cannot be read"):
        command("metaner-neighbors", tmp_path / "missing.tar.gz", tmp_path / "missing.jsonl")
    lines = write_lines(tmp_path, LINES)
    with pytest.raises(ConfigurationError, match=r"missing\.tar\.gz: cannot be read"):
        command("metaner-neighbors", tmp_path / "missing.tar.gz", lines)
    with pytest.raises(ConfigurationError, match=r"it has no config\.json"):
        command("metaner-neighbors", tmp_path, lines)


def test_readers_that_cannot_retrieve(command: Command, config: dict[str, Any], tmp_path: Path) -> None:
    lines = write_lines(tmp_path, LINES)
    reader = config.pop("validation_dataset_reader")
    # As everywhere in AllenNLP, the training reader stands in: its pool would be the file that it reads.
    with pytest.raises(ConfigurationError, match="no pool to retrieve from: give it pool_path"):
        command("metaner-neighbors", write_config(tmp_path, config), lines)
    plain = write_config(tmp_path, {"dataset_reader": reader["base_reader"]})
    with pytest.raises(ConfigurationError, match=rf"{re.escape(str(plain))}.*ColumnReader.*'pseudo_tasks'"):
        command("metaner-neighbors", plain, lines, "--num-neighbors", 2)


@pytest.mark.parametrize(("number", "message"), [(0, "num_neighbors=0"), (4, "pool has 3 sentences")])
def test_impossible_numbers(
    command: Command, config: dict[str, Any], tmp_path: Path, number: int, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        command(
            "metaner-neighbors",
            write_config(tmp_path, config),
            write_lines(tmp_path, LINES),
            "--num-neighbors",
            number,
        )


def test_overrides(command: Command, config: dict[str, Any], tmp_path: Path) -> None:
    overrides = json.dumps({"validation_dataset_reader.pool_path": str(tmp_path / "other.txt")})
    with pytest.raises(ConfigurationError, match=r"other\.txt: cannot be read"):
        command(
            "metaner-neighbors",
            write_config(tmp_path, config),
            write_lines(tmp_path, LINES),
            "-o",
            overrides,
        )


def test_found_by_allennlp(running_process: type[RunningProcess], tmp_path: Path) -> None:
    # AllenNLP looks for commands before it imports --include-package: the file .allennlp_plugins of the
    # folder tells where.
    arguments = ("metaner-neighbors", "--help")
    process = running_process(allennlp, *arguments, folder=ROOT, output=tmp_path / "printed")
    assert process.finish() == 0, process.printed[-2000:]
    assert "--num-neighbors" in process.printed
    assert "--include-package" in process.printed
