"""The reader of pseudo labels, and what the tagger learns from them."""

from pathlib import Path

import torch
from allennlp.common import Params
from allennlp.data import Batch, DatasetReader
from allennlp.models import Archive

from allennlp_metaner.unlabelled.pseudo_labels import read_manifest, read_pseudo_labels


def batch_of(folder: Path, archive: Archive, word_weights: str = "none") -> dict[str, torch.Tensor]:
    params = Params({"type": "pseudo_labels", "word_weights": word_weights})
    reader = DatasetReader.from_params(params)
    instances = list(reader.read(str(folder)))[:4]
    for instance in instances:
        archive.validation_dataset_reader.apply_token_indexers(instance)
    batch = Batch(instances)
    batch.index_instances(archive.model.vocab)
    return batch.as_tensor_dict()  # type: ignore[return-value]


def test_instances(tiny_pseudo_labels: Path) -> None:
    labels = read_manifest(tiny_pseudo_labels)["labels"]
    reader = DatasetReader.by_name("pseudo_labels")(max_instances=3)
    for instance, sentence in zip(
        reader.read(str(tiny_pseudo_labels)), read_pseudo_labels(tiny_pseudo_labels), strict=False
    ):
        assert [token.text for token in instance["tokens"]] == sentence.words
        assert list(instance["tags"].labels) == [labels[index] for index in sentence.tags.tolist()]
        # For the masking indexer.
        assert [token.ent_type_ for token in instance["tokens"]] == list(instance["tags"].labels)


def test_a_teacher_has_nothing_to_learn_from_itself(tiny_pseudo_labels: Path, tiny_archive: Archive) -> None:
    batch = batch_of(tiny_pseudo_labels, tiny_archive)
    model = tiny_archive.model.eval()
    teacher = model(**{key: batch[key] for key in ("tokens", "tags")})["logits"].softmax(dim=-1)
    words = batch["probabilities"].sum(dim=-1) > 0
    torch.testing.assert_close(teacher[words], batch["probabilities"][words], atol=2e-3, rtol=0)
    model._student_loss.kind = "squared_error"
    try:
        assert model(**batch)["loss"].item() < 1e-3
        assert model(**{**batch, "word_weights": torch.zeros_like(batch["word_weights"])})["loss"].item() == 0
    finally:
        model._student_loss.kind = "cross_entropy"
    other = batch["probabilities"].roll(1, dims=-1)
    assert model(**{**batch, "probabilities": other})["loss"] > model(**batch)["loss"]


def test_hard_labels(tiny_pseudo_labels: Path, tiny_archive: Archive) -> None:
    """They add the loss of ordinary training, times their weight."""
    batch = batch_of(tiny_pseudo_labels, tiny_archive)
    model = tiny_archive.model.eval()
    lambda_, model.max_loss_weight = model.max_loss_weight, 0.0
    try:
        soft = model(**batch)["loss"].item()
        hard = model(**{key: batch[key] for key in ("tokens", "tags")})["loss"].item()
        model._student_loss.hard_label_weight = 0.5
        both = model(**batch)["loss"].item()
    finally:
        model._student_loss.hard_label_weight, model.max_loss_weight = 0.0, lambda_
    assert abs(both - (soft + 0.5 * hard)) < 1e-4 * both
