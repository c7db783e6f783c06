"""The shipped configs: each is built for real, and differs from the others in nothing but what it says."""

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.commands.train import TrainModel, train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, DatasetReader, Instance, Vocabulary
from allennlp.evaluation import Evaluator
from allennlp.models import Model, load_archive
from allennlp.predictors import Predictor
from allennlp.training.optimizers import Optimizer

from allennlp_metaner import settings
from allennlp_metaner.evaluation.adapting_evaluator import AdaptingEvaluator
from allennlp_metaner.meta.inner_optimizers import inner_optimizer
from allennlp_metaner.meta.test_time_adaptation import adapts
from allennlp_metaner.training.reproducible_trainer import ReproducibleTrainer
from allennlp_metaner.training.sharded_data_loader import ShardedDataLoader
from tests.configs import CONFIGS, NAMES, TRAINING, config

# Overrides for an archive, and the file of METANER_DATA that each is for.
OVERRIDES = {
    "targets/es": "conll2002/esp.testb",
    "targets/nl": "conll2002/ned.testb",
    "targets/de": "conll2003/deu.testb",
    "targets/fr": "europeana/enp_FR.bnf.bio",
    "targets/zh": "msra/test.bio",
    "targets/pt": "uner/pt.test.iob2",
    "targets/da": "uner/da.dev.iob2",
}
STUDENTS = [
    name
    for name in TRAINING
    if name.startswith(("unlabelled", "small/student", "small/voting", "recommended"))
]
# Those that start from a finished run.
AFTER_A_RUN = [
    name for name in TRAINING if name.startswith(("low_resource", "second_stage")) or name in STUDENTS
]

INDEXER = "dataset_reader.base_reader.token_indexers.tokens"
MISC_TO_O = {"label_map.MISC": "O"}
TARGET_READER = {"num_columns": 3, "scheme": "BIO"}
BERT_ADAM = {"type": "bert_adam"}


def under(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in values.items()}


MISSING = "missing"
LOW_RESOURCE: dict[str, Any] = {
    "train_data_path": "{data}/conll2002/esp.train",
    "validation_data_path": None,
    **under("dataset_reader", {**TARGET_READER, "fraction": 0.01, "seed": 13370}),
    # Nothing is retrieved: a plain reader in place of that of pseudo tasks.
    "validation_dataset_reader": {
        "type": "ner_columns",
        "word_column": 0,
        "tag_column": -1,
        "encoding": "utf-8",
        "separator": None,
        "sentence_end": None,
        "comment_prefix": None,
        "entity_types": ["PER", "ORG", "LOC", "MISC"],
        "token_indexers": {"tokens": {"type": "word_transformer", "model_name": "{encoder}"}},
        **TARGET_READER,
    },
    "include_in_archive": ["encoder"],
    **under("vocabulary", {"type": "from_files", "directory": "{start}/vocabulary"}),
    "model.initializer.regexes": [[".*", {"type": "pretrained", "weights_file_path": "{start}/best.th"}]],
    "trainer.num_epochs": 10,
    "trainer.optimizer.lr": 1e-5,
    "trainer.learning_rate_scheduler": None,
    "trainer.learning_rate_scheduler.type": MISSING,
    "trainer.learning_rate_scheduler.warmup_steps": MISSING,
}
STUDENT: dict[str, Any] = {
    **{
        key: value
        for key, value in LOW_RESOURCE.items()
        if not key.startswith(("dataset_reader", "train_data_path", "trainer", "vocabulary"))
    },
    "train_data_path": "runs/pseudo_labels",
    "dataset_reader": {
        "type": "pseudo_labels",
        "token_indexers": {"tokens": {"type": "word_transformer", "model_name": "{encoder}"}},
        "word_weights": "none",
    },
    **under("vocabulary", {"type": "from_files", "directory": "runs/pseudo_labels/vocabulary"}),
    "model.loss_reduction": "token",
    "model.constrain_decoding": True,
    "trainer.num_epochs": 1,
    "trainer.grad_norm": 1.0,
    **under("trainer.optimizer", {"lr": 1.5e-5, "weight_decay": 0.01}),
    **under(
        "trainer.learning_rate_scheduler",
        {"type": "slanted_triangular", "cut_frac": 0.1, "ratio": 32, "warmup_steps": MISSING},
    ),
}
VOTING = {
    "dataset_reader.word_weights": "vote",
    **under("model", {"soft_label_loss": "squared_error", "hard_label_weight": 1.0}),
}
# What a second stage changes: where it starts, its rates, and how many checkpoints it keeps.
STARTED = {
    **under("vocabulary", {"type": "from_files", "directory": "{start}/vocabulary"}),
    "model.initializer.regexes": [[".*", {"type": "pretrained", "weights_file_path": "{start}/best.th"}]],
    "model.adaptation.inner_loop.optimizer.lr": math.sqrt(10) * (3e-5 / 3),
    "model.adaptation.inner_loop.optimizer.eps": 1e-6 * math.sqrt(1000),
    "trainer.checkpointer.keep_most_recent_by_count": 5,
    "trainer.optimizer.lr": 3e-5,
    "trainer.optimizer.parameter_groups": [
        [["text_field_embedder"], {"lr": 3e-5}],
        [["classifier"], {"lr": 10 * 3e-5}],
    ],
}
MASKED: dict[str, Any] = {
    "type": "entity_masking",
    "probability": 0.2,
    "model_name": MISSING,
    **under("indexer", {"type": "word_transformer", "model_name": "{encoder}"}),
}
GROUPS = [[["text_field_embedder"], {"lr": 1e-4}], [["classifier"], {"lr": 1e-3}]]
MIDDLE = {"pooling": "mean", "layer": "middle"}
SMALL = {
    "model.constrain_decoding": True,
    **under("trainer", {"optimizer.parameter_groups": GROUPS, "optimizer.lr": 1e-4}),
    **under("validation_dataset_reader.retriever.sentence_encoder", MIDDLE),
}

# Every config but the two it all starts from: which one it is made of, and all keys that it changes.
DIFFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "ablations/no_max_loss": ("meta_en", {"model.max_loss_weight": 0.0}),
    "ablations/no_masking": ("meta_en", {f"{INDEXER}.probability": 0.0}),
    "ablations/no_max_loss_no_masking": (
        "meta_en",
        {"model.max_loss_weight": 0.0, f"{INDEXER}.probability": 0.0},
    ),
    "controls/random_support": (
        "meta_en",
        {
            "dataset_reader.retriever.similarity_index.type": "random",
            "validation_dataset_reader.retriever.similarity_index.type": "random",
        },
    ),
    "controls/query_only": (
        "meta_en",
        {
            "trainer.meta_gradient.type": "query_only",
            "trainer.meta_gradient.inner_loop.num_steps": MISSING,
            "trainer.meta_gradient.inner_loop.optimizer.lr": MISSING,
            "trainer.meta_gradient.inner_loop.optimizer.type": MISSING,
        },
    ),
    "controls/reptile": ("meta_en", {"trainer.meta_gradient.type": "reptile"}),
    "controls/maml": ("meta_en", {"trainer.meta_gradient.type": "maml"}),
    "controls/anil": (
        "meta_en",
        {
            "model.adaptation.inner_loop.parameters": [r"^classifier\."],
            "trainer.meta_gradient.inner_loop.parameters": [r"^classifier\."],
            "trainer.meta_gradient.type": "anil",
        },
    ),
    "controls/one_by_one": (
        "meta_en",
        {
            "model.adaptation.inner_loop.batching": "one_by_one",
            "trainer.meta_gradient.inner_loop.batching": "one_by_one",
        },
    ),
    "controls/published_step": (
        "meta_en",
        {
            "model.adaptation.inner_loop.optimizer.type": "bert_adam",
            "trainer.meta_gradient.inner_loop.optimizer.type": "bert_adam",
        },
    ),
    "controls/base_adapted": ("base_en", {"model.adaptation.enabled": True}),
    "targets/no_misc": (
        "meta_en",
        {
            **under("dataset_reader.base_reader", MISC_TO_O),
            **under("validation_dataset_reader.base_reader", MISC_TO_O),
            **under("validation_dataset_reader.pool_reader", MISC_TO_O),
        },
    ),
    "targets/no_misc_base": (
        "base_en",
        {
            **under("dataset_reader", MISC_TO_O),
            **under("validation_dataset_reader.base_reader", MISC_TO_O),
            **under("validation_dataset_reader.pool_reader", MISC_TO_O),
        },
    ),
    "low_resource/percent_1": ("base_en", LOW_RESOURCE),
    "low_resource/percent_2": ("low_resource/percent_1", {"dataset_reader.fraction": 0.02}),
    "low_resource/percent_5": ("low_resource/percent_1", {"dataset_reader.fraction": 0.05}),
    "small/meta_en": (
        "meta_en",
        {
            **SMALL,
            **under("dataset_reader.retriever.sentence_encoder", MIDDLE),
            "data_loader.batches_per_epoch": 60,
            "trainer.num_epochs": 6,
            "trainer.learning_rate_scheduler.warmup_steps": 36,
        },
    ),
    "small/base_en": (
        "base_en",
        {**SMALL, "trainer.num_epochs": 3, "trainer.learning_rate_scheduler.warmup_steps": 130},
    ),
    "unlabelled/student": ("base_en", STUDENT),
    "unlabelled/voting": ("unlabelled/student", VOTING),
    "small/voting": ("small/student", VOTING),
    "small/voting_knn": ("small/voting", {"dataset_reader.word_weights": "vote+knn"}),
    "recommended": ("small/voting", {}),
    "unlabelled/knn": ("unlabelled/student", {"dataset_reader.word_weights": "knn"}),
    "unlabelled/voting_knn": ("unlabelled/voting", {"dataset_reader.word_weights": "vote+knn"}),
    "unlabelled/from_pretrained": (
        "unlabelled/student",
        {
            "model.initializer": None,
            "model.initializer.regexes": MISSING,
            "trainer.num_epochs": 3,
            "trainer.optimizer.lr": 3e-5,
        },
    ),
    "small/student": (
        "unlabelled/student",
        under(
            "trainer.optimizer",
            {
                "lr": 5e-5,
                "parameter_groups": [[["text_field_embedder"], {"lr": 5e-5}], [["classifier"], {"lr": 5e-4}]],
            },
        ),
    ),
    "second_stage/base_en": (
        "small/base_en",
        {
            **STARTED,
            **under("data_loader", {"batches_per_epoch": 300}),
            "trainer.num_epochs": 10,
            "trainer.learning_rate_scheduler.warmup_steps": 300,
        },
    ),
    "second_stage/base_masked_en": (
        "second_stage/base_en",
        {
            **under("dataset_reader.token_indexers.tokens", MASKED),
            "model.max_loss_weight": 2.0,
        },
    ),
    "second_stage/meta_en": (
        "small/meta_en",
        {
            **STARTED,
            f"{INDEXER}.type": "word_transformer",
            f"{INDEXER}.model_name": "{encoder}",
            **under(INDEXER, dict.fromkeys(("indexer.type", "indexer.model_name", "probability"), MISSING)),
            "model.max_loss_weight": 0.0,
            "data_loader.batches_per_epoch": 300,
            "trainer.num_epochs": 10,
            "trainer.learning_rate_scheduler.warmup_steps": 300,
            "trainer.meta_gradient.inner_loop.optimizer.lr": math.sqrt(10) * 3e-5,
            "trainer.meta_gradient.inner_loop.optimizer.eps": 1e-6 * math.sqrt(1000),
        },
    ),
    "second_stage/full_en": (
        "second_stage/meta_en",
        {
            **under("dataset_reader.base_reader.token_indexers.tokens", MASKED),
            "model.max_loss_weight": 2.0,
        },
    ),
    "official": (
        "meta_en",
        {
            f"{INDEXER}.first_subword_only": True,
            "dataset_reader.mask_support": False,
            "dataset_reader.retriever.skip_most_similar": True,
            "validation_dataset_reader.retriever.skip_most_similar": True,
            "vocabulary.tokens_to_add.labels": ["[PAD]", "X", "[CLS]", "[SEP]"],
            "model.text_field_embedder.token_embedders.tokens.output": "subwords",
            "model.subword_labels": True,
            "model.loss_reduction": "token",
            "model.frozen_layers": 4,
            "model.adaptation.dropout": True,
            **under("model.adaptation.inner_loop.optimizer", BERT_ADAM),
            **under("trainer.optimizer", BERT_ADAM),
            **under("trainer.meta_gradient.inner_loop.optimizer", BERT_ADAM),
        },
    ),
}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, tiny_word_encoder: str, tiny_data: Path, vectors: Path
) -> None:
    for name in settings.DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    settings.set_defaults()
    monkeypatch.setenv("METANER_ENCODER", tiny_word_encoder)
    monkeypatch.setenv("METANER_DATA", str(tiny_data))
    monkeypatch.setenv("METANER_CACHE", str(vectors))


def build(settings: dict[str, Any], directory: Path) -> TrainModel:
    """Everything that `allennlp train` builds before the first update."""
    params = Params(copy.deepcopy({key: value for key, value in settings.items() if "seed" not in key}))
    for key in ("evaluation", "include_in_archive"):
        params.pop(key)
    directory.mkdir(exist_ok=True)
    return TrainModel.from_params(params=params, serialization_dir=str(directory), local_rank=0)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def test_differences_cover_all_configs() -> None:
    assert sorted([*DIFFERENCES, *OVERRIDES, "meta_en", "base_en"]) == NAMES


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differs_in_nothing_else(name: str, tiny_data: Path, tiny_word_encoder: str) -> None:
    base, changes = DIFFERENCES[name]
    ours, theirs = dict(flat(config(name, TRAINING))), dict(flat(config(base, TRAINING)))
    different = {
        key: ours.get(key, MISSING)
        for key in {**theirs, **ours}
        if ours.get(key, MISSING) != theirs.get(key, MISSING)
    }
    for key in [key for key, value in changes.items() if isinstance(value, dict)]:
        different = {k: value for k, value in different.items() if not k.startswith(f"{key}.")}
        different[key] = config(name, TRAINING)[key]
    expected = json.loads(
        json.dumps(changes)
        .replace("{data}", str(tiny_data))
        .replace("{start}", "runs/meta_en")
        .replace("{encoder}", tiny_word_encoder)
    )
    assert different == expected


def first_step(optimizer: dict[str, Any], gradient: torch.Tensor) -> torch.Tensor:
    """What the inner loop's update with this optimiser adds to a weight of 0."""
    parameters = [("weight", torch.nn.Parameter(torch.zeros_like(gradient)))]
    made = Optimizer.from_params(Params(optimizer), model_parameters=parameters)
    return inner_optimizer(made, parameters)(0, parameters[0][1].detach(), gradient.clone)


@pytest.mark.parametrize("lr", [1e-5, 3e-5])
def test_inner_steps(lr: float, tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonnet"
    path.write_text(
        f"local steps = import '{CONFIGS}/lib/inner_steps.libsonnet';"
        f"{{ [name]: steps[name]({lr}) for name in std.objectFieldsAll(steps) }}",
        encoding="utf-8",
    )
    steps = Params.from_file(str(path)).as_dict(quiet=True)
    gradient = torch.tensor([1e-9, -1e-7, 3e-6, -3.16e-5, 1e-3, -0.1, 0.0], dtype=torch.float64)
    expected = {
        "paper": [-lr * g / (abs(g) + 1e-8) for g in gradient.tolist()],
        "published": [-(10**0.5) * lr * g / (abs(g) + 1e-6 * 1000**0.5) for g in gradient.tolist()],
    }
    expected["published_as_adam"] = expected["published"]
    for name, theirs in expected.items():
        assert first_step(steps[name], gradient).tolist() == pytest.approx(theirs, rel=1e-9)


def test_the_papers_numbers() -> None:
    found = dict(flat(config("meta_en", TRAINING)))
    numbers = {
        "dataset_reader.retriever.num_neighbors": 2,
        "validation_dataset_reader.retriever.num_neighbors": 2,
        f"{INDEXER}.probability": 0.2,
        "model.max_loss_weight": 2.0,
        "model.frozen_layers": 3,
        "model.text_field_embedder.token_embedders.tokens.max_length": 128,
        "model.text_field_embedder.token_embedders.tokens.overlap": 64,
        "model.adaptation.inner_loop.optimizer.lr": 1e-5,
        "model.adaptation.inner_loop.num_steps": 1,
        "data_loader.batch_size": 32,
        "trainer.optimizer.lr": 3e-5,
        "trainer.meta_gradient.inner_loop.optimizer.lr": 3e-5,
        "trainer.meta_gradient.inner_loop.num_steps": 2,
        "trainer.meta_gradient.reduction": "sum",
    }
    assert {key: found[key] for key in numbers} == numbers
    assert found["data_loader.batches_per_epoch"] * found["trainer.num_epochs"] == 3000
    assert found["trainer.learning_rate_scheduler.warmup_steps"] == 300


@pytest.mark.parametrize("name", TRAINING)
def test_is_built(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    student = name in STUDENTS
    if name in AFTER_A_RUN:
        start = request.getfixturevalue("tiny_run").run
        request.getfixturevalue("monkeypatch").setenv("METANER_START", str(start))
        pseudo_labels = request.getfixturevalue("tiny_pseudo_labels")
        request.getfixturevalue("monkeypatch").setenv("METANER_PSEUDO_LABELS", str(pseudo_labels))
    ours = config(name, AFTER_A_RUN if name in AFTER_A_RUN else TRAINING)
    # Of batches of 32, the largest part of the time.
    loader = ours["data_loader"]
    loader.get("batch_sampler", loader)["batch_size"] = 4
    built = build(ours, tmp_path / "run")
    # Which several processes (`distributed`) may share; tests/training/test_distributed.py has runs of them.
    assert isinstance(built.trainer, ReproducibleTrainer)
    loaders = (built.trainer.data_loader, built.trainer._validation_data_loader)
    assert all(isinstance(loader, ShardedDataLoader) for loader in loaders if loader is not None)
    frozen = ours["model"]["frozen_layers"]
    layers = built.model.text_field_embedder.token_embedder_tokens._embedder.transformer_model.encoder.layer
    assert [all(p.requires_grad for p in layer.parameters()) for layer in layers] == [
        i >= frozen for i in range(5)
    ]
    # The warm-up begins with an inner rate of 0, at which Reptile has no gradient.
    vars(built.trainer)["_schedule_inner_lr"] = False
    batch = next(iter(built.trainer.data_loader))
    loss = built.trainer.batch_outputs(batch, for_training=True)["loss"]
    assert torch.isfinite(loss) and loss > 0
    loss.backward()
    assert built.model.classifier.weight.grad.abs().sum() > 0
    assert isinstance(Evaluator.from_params(Params(ours["evaluation"])), AdaptingEvaluator)
    plain = ("base_en", "small/base_en", "targets/no_misc_base", "second_stage/base_masked_en")
    adapted = name not in (*plain, "second_stage/base_en") and "low" not in name and not student
    assert adapts(built.model) == adapted
    if ours["validation_data_path"]:
        (batch,) = built.trainer._validation_data_loader
        assert "task" in batch
        assert torch.isfinite(built.trainer.batch_outputs(batch, for_training=False)["loss"])


def train_instances(name: str) -> list[Instance]:
    ours = config(name, TRAINING)
    reader = DatasetReader.from_params(Params(ours["dataset_reader"]))
    instances = list(reader.read(ours["train_data_path"]))
    for instance in instances:
        reader.apply_token_indexers(instance)
    vocab = Vocabulary.from_instances(instances)
    for instance in instances:
        instance.index_fields(vocab)
    return instances


def num_masked(instances: list[Instance], part: str) -> int:
    mask = 4  # [MASK] of the tiny encoder
    tasks = [instance["task"].as_tensor({}) for instance in instances]  # type: ignore[attr-defined]
    return sum(int((task[part]["tokens"]["tokens"]["token_ids"] == mask).sum()) for task in tasks)


@pytest.mark.parametrize(
    ("name", "query", "support"),
    [
        ("meta_en", True, True),
        ("ablations/no_max_loss", True, True),
        ("official", True, False),
        ("ablations/no_masking", False, False),
        ("ablations/no_max_loss_no_masking", False, False),
    ],
)
def test_masks(name: str, query: bool, support: bool) -> None:
    instances = [instance for instance in train_instances(name) if "tags" in instance.fields]
    assert (num_masked(instances, "query") > 0) == query
    assert (num_masked(instances, "support") > 0) == support


def loss_of(name: str, directory: Path) -> tuple[float, float]:
    """The loss of a fixed batch by a model with fixed weights, and what the max loss adds to its mean."""
    # The same batch for all: that of the configuration without masks.
    ours = {**config("ablations/no_masking", TRAINING), "model": config(name, TRAINING)["model"]}
    ours["data_loader"]["shuffle"] = False
    torch.manual_seed(1)
    model: Model = build(ours, directory / name.replace("/", "_")).model.eval()
    reader = DatasetReader.from_params(Params(ours["validation_dataset_reader"]))
    instances = list(reader.read(ours["validation_data_path"]))[:3]
    for instance in instances:
        reader.apply_token_indexers(instance)
    batch = Batch(instances)
    batch.index_instances(model.vocab)
    tensors = batch.as_tensor_dict()
    tensors.pop("task")
    return model.losses([tensors]).item(), model.losses([tensors], max_loss_weight=0.0).item()


def test_max_loss(tmp_path: Path) -> None:
    full, mean = loss_of("meta_en", tmp_path)
    without, same_mean = loss_of("ablations/no_max_loss", tmp_path)
    assert full > mean + 1
    assert without == same_mean == mean
    assert loss_of("ablations/no_max_loss_no_masking", tmp_path)[0] == loss_of("base_en", tmp_path)[0] == mean


def supports(name: str) -> list[list[list[str]]]:
    return [
        [neighbor["words"] for neighbor in instance["metadata"].metadata["support"]]  # type: ignore[attr-defined]
        for instance in train_instances(name)
    ]


def test_random_support() -> None:
    nearest, random = supports("meta_en"), supports("controls/random_support")
    assert len(nearest) == len(random) == 40
    assert all(len(support) == 2 for support in random)
    assert sum(a != b for a, b in zip(nearest, random, strict=True)) > 30


@pytest.mark.parametrize("name", ["targets/no_misc", "targets/no_misc_base"])
def test_no_misc(name: str, tmp_path: Path) -> None:
    labels = {}
    for config_name in (name, "meta_en"):
        built = build(config(config_name, TRAINING), tmp_path / config_name.replace("/", "_"))
        vocab = built.model.vocab.get_token_to_index_vocabulary("labels")
        pool = built.trainer._validation_data_loader.reader.pool
        labels[config_name] = {*vocab, *(tag for tags in pool.tags for tag in tags)}
    assert labels["meta_en"] - labels[name] == {"B-MISC", "I-MISC"}


@pytest.mark.parametrize("name", OVERRIDES)
def test_target_overrides_of_an_archive(name: str, tiny_run: SimpleNamespace, tiny_data: Path) -> None:
    """As in `allennlp evaluate ARCHIVE FILE -o "import '...'"`: the file's layout changes, nothing else."""
    archived = str(tiny_run.run / "config.json")
    params = Params.from_file(archived, f"import '{CONFIGS}/{name}.jsonnet'")
    ours, theirs = dict(flat(params.as_dict(quiet=True))), dict(flat(json.loads(Path(archived).read_text())))
    prefix = "validation_dataset_reader.base_reader."
    development = name in ("targets/pt", "targets/da")
    expected = {"model.ignored_types": ["MISC"]} if development else {}
    assert expected == {
        key: ours.get(key)
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key) and not key.startswith(prefix)
    }
    assert all(key in ours for key in theirs if ".token_indexers." in key)
    reader = DatasetReader.from_params(
        params["validation_dataset_reader"], serialization_dir=str(tiny_run.run)
    )
    instances = list(reader.read(str(tiny_data / OVERRIDES[name])))
    assert len(instances) == {"targets/fr": 2375, "targets/zh": 40}.get(name, 10)
    tags = {tag for instance in instances for tag in instance["tags"].labels}  # type: ignore[attr-defined]
    assert {"O", "B-PER", "I-PER", "B-LOC", "B-ORG", "I-ORG"} <= tags
    assert ("B-MISC" in tags) == (name != "targets/fr" and not development)
    reader.apply_token_indexers(instances[0])


def test_a_corpus_without_misc(tiny_run: SimpleNamespace, tiny_data: Path) -> None:
    """The same sentences, once with MISC and once without, by the same model: all other types score alike."""
    scores = {}
    for name, file in {"es": "conll2002/esp.train", "pt": "uner/pt.dev.iob2"}.items():
        archive = load_archive(
            str(tiny_run.archive),
            overrides=f"(import '{CONFIGS}/targets/{name}.jsonnet')"
            " + { 'model.adaptation.enabled': false }",
        )
        instances = list(archive.validation_dataset_reader.read(str(tiny_data / file)))[:10]
        archive.model.eval().forward_on_instances(instances)
        scores[name] = archive.model.get_metrics()
    assert scores["es"]["f1-measure-MISC"] > 0.5
    types = [key for key in scores["pt"] if "accuracy" not in key and "overall" not in key]
    assert {key[-3:] for key in types} == {"PER", "ORG", "LOC"}
    assert {key: scores["es"][key] for key in types} == {key: scores["pt"][key] for key in types}


@pytest.mark.parametrize("name", ["meta_en", "base_en"])
def test_missing_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError) as error:
        build(config(name), tmp_path / "run")
    assert str(tmp_path / "nowhere/conll2003/eng.train") in str(error.value)
    assert "METANER_DATA" in str(error.value)


@pytest.mark.parametrize("encoder", ["/nowhere/encoder", "no-such-encoder"])
def test_missing_encoder(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_ENCODER", encoder)
    with pytest.raises(ConfigurationError) as error:
        build(config("meta_en"), tmp_path / "run")
    assert repr(encoder) in str(error.value)
    assert "METANER_ENCODER" in str(error.value)
    assert not (tmp_path / "run/encoder").exists()


def test_settings_fill_in_only_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METANER_SEED")
    monkeypatch.setenv("METANER_TARGET", "msra_zh")
    settings.set_defaults()
    found = config("low_resource/percent_1")
    assert found["random_seed"] == found["dataset_reader"]["seed"] == 13370
    assert found["train_data_path"].endswith("msra/train.bio")


def test_low_resource_keeps_the_parts_of_a_split_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_TARGET", "europeana_fr")
    found = config("low_resource/percent_1")
    assert found["dataset_reader"]["split"] == "train"
    assert found["validation_dataset_reader"]["split"] == "test"


def test_sizes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANER_UPDATES", "600")
    monkeypatch.setenv("METANER_BATCH_SIZE", "8")
    monkeypatch.setenv("METANER_NEIGHBORS", "5")
    found = config("meta_en")
    assert found["trainer"]["num_epochs"] == 2
    assert found["trainer"]["learning_rate_scheduler"]["warmup_steps"] == 60
    assert found["data_loader"]["batch_size"] == 8
    for reader in ("dataset_reader", "validation_dataset_reader"):
        assert found[reader]["retriever"]["num_neighbors"] == 5
    monkeypatch.setenv("METANER_UPDATES", "500")
    with pytest.raises(RuntimeError, match=r"METANER_UPDATES.*multiple of 300"):
        config("meta_en")


# Epochs and updates of each, and those that the environment changes them to.
LENGTHS = {
    "meta_en": [(10, 300), (2, 10)],
    "small/meta_en": [(6, 60), (2, 10)],
    "second_stage/meta_en": [(10, 300), (2, 10)],
    "base_en": [(7, None), (1, None)],
    "small/base_en": [(3, None), (1, None)],
    "low_resource/percent_5": [(10, None), (10, None)],
    "unlabelled/student": [(1, None), (1, None)],
}


@pytest.mark.parametrize("name", LENGTHS)
def test_length_of_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lengths() -> tuple[int, int | None]:
        found = config(name, list(LENGTHS))
        return found["trainer"]["num_epochs"], found["data_loader"].get("batches_per_epoch")

    shipped, changed = LENGTHS[name]
    assert lengths() == shipped
    for variable, value in {"UPDATES": "20", "UPDATES_PER_VALIDATION": "10", "EPOCHS": "1"}.items():
        monkeypatch.setenv(f"METANER_{variable}", value)
    assert lengths() == changed


def test_every_variable_has_a_default() -> None:
    files = [*CONFIGS.rglob("*.jsonnet"), *CONFIGS.rglob("*.libsonnet")]
    names = {name for path in files for name in re.findall(r"extVar\(.([^'\"]+)", path.read_text("utf-8"))}
    assert names == set(settings.DEFAULTS)


def test_low_resource_run(tiny_run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A start of its own, which can be taken away.
    start = tmp_path / "start"
    start.mkdir()
    (start / "vocabulary").symlink_to(tiny_run.run / "vocabulary")
    (start / "best.th").symlink_to(tiny_run.run / "best.th")
    monkeypatch.setenv("METANER_START", str(start))
    # Steps too small to be seen: what is left is where the run started.
    overrides = {"trainer.num_epochs": 1, "trainer.optimizer.lr": 1e-12, "trainer.callbacks": []}
    params = Params.from_file(str(CONFIGS / "low_resource/percent_5.jsonnet"), overrides)
    train_model(params, str(tmp_path / "run"))
    for path in (start / "vocabulary", start / "best.th"):
        path.unlink()
    start.rmdir()

    archive = load_archive(str(tmp_path / "run/model.tar.gz"))
    weights = torch.load(tiny_run.run / "best.th")
    assert archive.model.state_dict().keys() == weights.keys()
    for name, tensor in archive.model.state_dict().items():
        assert torch.allclose(tensor, weights[name], atol=1e-9), name
    # Without retrieval, and without being told so.
    predictor = Predictor.from_archive(archive)
    assert len(predictor.predict_json({"words": ["Maria", "visited", "Paris"]})["tags"]) == 3
