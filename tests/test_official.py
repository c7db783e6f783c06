"""The `official` preset against figures that the authors' published code gave on a tiny case."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from allennlp.common import Params
from allennlp.data import Batch, DatasetReader, Instance, Vocabulary
from allennlp.models import Model
from safetensors.torch import save_file
from transformers import BertConfig, BertTokenizerFast

from allennlp_metaner.meta.fast_weights import AdaptedTasks
from allennlp_metaner.meta.meta_gradients import MetaGradient
from allennlp_metaner.nn.parameters import trainable_parameters

ROOT = Path(__file__).parents[1]
CASE = json.loads((ROOT / "test_fixtures/official/parity.json").read_text("utf-8"))
FIGURES = numpy.load(ROOT / "test_fixtures/official/parity.npz")
TOLERANCE = 1e-5


def write_encoder(directory: Path) -> None:
    directory.mkdir()
    (directory / "vocab.txt").write_text("\n".join(CASE["vocab"]) + "\n", encoding="utf-8")
    BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=False).save_pretrained(str(directory))
    BertConfig(architectures=["BertModel"], **CASE["config"]).save_pretrained(str(directory))
    weights = {
        name.removeprefix("start/bert."): torch.from_numpy(FIGURES[name])
        for name in FIGURES.files
        if name.startswith("start/bert.")
    }
    save_file(weights, str(directory / "model.safetensors"), metadata={"format": "pt"})


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    directory = tmp_path_factory.mktemp("official")
    write_encoder(directory / "encoder")
    lines = ["".join(f"{word} - - {tag}\n" for word, tag in sentence) for sentence in CASE["sentences"]]
    (directory / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METANER_ENCODER", str(directory / "encoder"))
        config = Params.from_file(
            str(ROOT / "training_configs/official.jsonnet"),
            {
                "dataset_reader.base_reader.scheme": "BIO",
                "dataset_reader.base_reader.token_indexers.tokens.probability": 0.0,
                "dataset_reader.retriever.use_cache": False,
                # The figures were computed without dropout.
                "model.dropout": 0.0,
            },
        )
    reader = DatasetReader.from_params(config["dataset_reader"])
    instances = list(reader.read(str(directory / "train.txt")))
    vocab = Vocabulary.from_params(config["vocabulary"], instances=instances)
    for instance in instances:
        reader.apply_token_indexers(instance)
    model = Model.from_params(config["model"], vocab=vocab)
    load_classifier(model, vocab)
    model.eval()
    trainer = config["trainer"]
    yield SimpleNamespace(
        model=model,
        instances=instances,
        tasks=[tensors(instance, vocab) for instance in instances[:4]],
        meta_gradient=MetaGradient.from_params(trainer["meta_gradient"]),
    )


def load_classifier(model: Model, vocab: Vocabulary) -> None:
    """The published code numbers labels in its own way."""
    rows = label_rows(vocab)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(FIGURES["start/classifier.weight"])[rows])
        model.classifier.bias.copy_(torch.from_numpy(FIGURES["start/classifier.bias"])[rows])


def label_rows(vocab: Vocabulary) -> list[int]:
    published = ["[PAD]", *CASE["labels"]]
    ours = vocab.get_index_to_token_vocabulary("labels")
    assert sorted(ours.values()) == sorted(published)
    return [published.index(ours[i]) for i in range(len(ours))]


def tensors(instance: Instance, vocab: Vocabulary) -> dict[str, Any]:
    batch = Batch([instance])
    batch.index_instances(vocab)
    return batch.as_tensor_dict()["task"][0]


def published_name(name: str) -> str:
    return name.replace("text_field_embedder.token_embedder_tokens._embedder.transformer_model.", "bert.")


def difference(model: Model, ours: dict[str, torch.Tensor], prefix: str) -> float:
    """The relative difference of whole vectors."""
    rows = label_rows(model.vocab)
    ours_flat, theirs_flat = [], []
    names = {name.removeprefix(prefix) for name in FIGURES.files if name.startswith(prefix)}
    assert {published_name(name) for name in ours} == names
    for name, tensor in ours.items():
        theirs = torch.from_numpy(FIGURES[prefix + published_name(name)])
        theirs_flat.append((theirs[rows] if name.startswith("classifier") else theirs).flatten())
        ours_flat.append(tensor.detach().flatten())
    a, b = torch.cat(ours_flat), torch.cat(theirs_flat)
    return ((a - b).norm() / b.norm()).item()


def test_support_sentences(official: SimpleNamespace) -> None:
    words = [[word for word, _ in sentence] for sentence in CASE["sentences"]]
    for instance, expected in zip(official.instances, FIGURES["support_index"], strict=True):
        found = [sentence["words"] for sentence in instance["metadata"].metadata["support"]]
        # The published code lists the nearest sentence last, and breaks ties between equal texts by rounding.
        assert sorted(found) == sorted(words[i] for i in expected)


@pytest.mark.parametrize("number", range(4))
def test_losses(official: SimpleNamespace, number: int) -> None:
    task = official.tasks[number]
    for part, weight in [("support", 2), ("query", 2), ("query", 0)]:
        loss = official.model.losses([task[part]], max_loss_weight=float(weight)).item()
        assert loss == pytest.approx(
            float(FIGURES[f"task{number}/{part}_loss_lambda{weight}"]), rel=TOLERANCE
        )


def test_parameters_after_two_inner_steps(official: SimpleNamespace) -> None:
    model, parameters = official.model, trainable_parameters(official.model)

    def copies(adapted: AdaptedTasks) -> dict[str, torch.Tensor]:
        return {name: adapted.weights.of_task(0, n).clone() for n, (name, _) in enumerate(parameters)}

    ((_, found),) = official.meta_gradient._inner_loop.adapt_and_differentiate(
        copies, model, parameters, [official.tasks[0]["support"]], [official.tasks[0]["query"]], seed=0
    )
    assert difference(model, found, "inner2_task0/") < TOLERANCE
    # The steps are large enough for this test to see a missing one.
    assert difference_from_start(found) > 100 * TOLERANCE


def difference_from_start(weights: dict[str, torch.Tensor]) -> float:
    moved, total = 0.0, 0.0
    for name, weight in weights.items():
        if not name.startswith("classifier"):
            start = torch.from_numpy(FIGURES["start/" + published_name(name)])
            moved += (weight - start).square().sum().item()
            total += start.square().sum().item()
    return (moved / total) ** 0.5


def test_summed_meta_gradient(official: SimpleNamespace) -> None:
    model, parameters = official.model, trainable_parameters(official.model)
    _, gradient = official.meta_gradient(model, parameters, official.tasks, seed=0)
    named = {name: value for (name, _), value in zip(parameters, gradient, strict=True)}
    assert difference(model, named, "meta_gradient_sum/") < TOLERANCE


def test_adapted_logits(official: SimpleNamespace) -> None:
    model = official.model
    expected = torch.from_numpy(FIGURES["adapted_query_logits_task0"])[0][:, label_rows(model.vocab)]
    (output,) = model.adaptation.predict(model, official.tasks[:1])
    query = official.tasks[0]["query"]["tokens"]["tokens"]
    first = query["offsets"][0, :, 0]
    difference = (output["logits"][0] - expected[first]).norm() / expected[first].norm()
    assert difference < TOLERANCE
