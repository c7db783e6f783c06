"""An archive that was trained on columns evaluates files of every other kind, with the same result."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import spacy
from allennlp.common.params import parse_overrides
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.evaluation import Evaluator
from allennlp.models import load_archive
from spacy.tokens import Doc, DocBin

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.sentence import words_and_tags

CONFIGS = Path(__file__).parents[2] / "training_configs"
Sentences = list[tuple[list[str], list[str]]]


def write_json_lines(path: Path, sentences: Sentences) -> None:
    lines = [json.dumps({"tokens": words, "ner_tags": tags}) for words, tags in sentences]
    path.write_text("\n".join(lines), "utf-8")


def write_table(path: Path, sentences: Sentences) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "word", "tag"])
        for number, (words, tags) in enumerate(sentences):
            writer.writerows((number, *row) for row in zip(words, tags, strict=True))


def write_doc_bin(path: Path, sentences: Sentences) -> None:
    vocab = spacy.blank("xx").vocab
    DocBin(docs=[Doc(vocab, words, ents=tags) for words, tags in sentences]).to_disk(path)


@pytest.mark.parametrize(
    ("reader", "write"),
    [
        ("{ type: 'ner_json_lines' }", write_json_lines),
        ("{ type: 'ner_table', sentence_column: 'id' }", write_table),
        ("{ type: 'ner_doc_bin' }", write_doc_bin),
    ],
)
def test_same_result(
    tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, write: object
) -> None:
    monkeypatch.setenv("METANER_ENCODER", str(tiny_run.encoder))
    columns = tiny_run.data / "conll2003/eng.testb"
    sentences = [words_and_tags(instance) for instance in ColumnReader(scheme="IOB1").read(str(columns))]
    write(tmp_path / "data", sentences)  # type: ignore[operator]
    helper = CONFIGS / "lib/other_reader.libsonnet"
    overrides = f"(import '{helper}')({reader}) + {{ 'model.adaptation.enabled': false }}"

    def metrics(path: Path, overrides: str) -> dict[str, float]:
        archive = load_archive(str(tiny_run.archive), overrides=json.dumps(parse_overrides(overrides)))
        loader = MultiProcessDataLoader(archive.validation_dataset_reader, str(path), batch_size=4)
        loader.index_with(archive.model.vocab)
        return Evaluator.by_name("adapting")(print_scores=False)(archive.model, loader)  # type: ignore[call-arg]

    expected = metrics(columns, "{ 'model.adaptation.enabled': false }")
    assert expected["f1-measure-overall"] > 0
    assert metrics(tmp_path / "data", overrides) == pytest.approx(expected, rel=1e-5)
