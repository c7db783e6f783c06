"""A tagger's archive as a model of `transformers`, and as an ONNX file."""

import copy
import importlib.util
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data.token_indexers import TokenIndexer
from allennlp.models.archival import Archive
from transformers import (
    BertForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaForTokenClassification,
    XLMRobertaForTokenClassification,
)

from allennlp_metaner.data.entity_masking_indexer import refuse_masking
from allennlp_metaner.data.sentence import LABEL_NAMESPACE, sentence_instance
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.exporting.model_card import model_card
from allennlp_metaner.models.frozen_outputs import token_embedders
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder
from allennlp_metaner.retrieval.vector_cache import new_directory
from allennlp_metaner.tagging.exported_tagger import ONNX_FILE, SETTINGS_KEY, ExportSettings

CLASSES: dict[str, type[PreTrainedModel]] = {
    "bert": BertForTokenClassification,
    "roberta": RobertaForTokenClassification,
    "xlm-roberta": XLMRobertaForTokenClassification,
}
"""By the `model_type` of the encoder's config. All of them are dropout and a linear layer on the encoder."""


class _Parts(NamedTuple):
    """What an exported tagger is made from."""

    tagger: MaxLossTagger
    embedder: WordTransformerEmbedder
    indexer: WordTransformerIndexer


def export(
    archive: Archive,
    folder: Path,
    source: str,
    metrics: Optional[dict[str, Any]] = None,
    onnx: bool = False,
    facts: Optional[dict[str, Any]] = None,
) -> None:
    """
    Write a folder that `transformers` loads as a token classification model, and
    [`ExportedTagger`](../tagging/exported_tagger.md#exportedtagger) with the tags that the archive's
    predictor gives without adaptation. It is written whole or not at all.

    # Parameters

    archive : `Archive`
        Of a tagger of this package. It is left as it is.
    folder : `Path`
        Must not exist yet.
    source : `str`
        The archive's path, for messages.
    metrics : `dict[str, Any]`, optional (default = `None`)
        AllenNLP's metrics of the training, for the model card.
    onnx : `bool`, optional (default = `False`)
        Whether an ONNX file is written too.
    facts : `dict[str, Any]`, optional (default = `None`)
        What else is known of the training, for the model card.

    # Raises

    `ConfigurationError`, if the folder exists, the model cannot be exported, or a package is missing.
    """
    check_target(folder, onnx)
    parts = _parts(archive, source)
    model = _model(parts, source)
    card = model_card(model.config, archive.config.as_dict(quiet=True), metrics or {}, onnx, facts or {})
    with new_directory(folder, made_by="allennlp metaner-export") as scratch:
        model.save_pretrained(str(scratch), safe_serialization=True)
        _tokenizer(parts).save_pretrained(str(scratch))
        (scratch / "README.md").write_text(card, encoding="utf-8")
        if onnx:
            _write_onnx(scratch, type(model))


def check_target(folder: Path, onnx: bool = False) -> None:
    """
    # Raises

    `ConfigurationError`, if [`export`](#export) cannot write such a folder.
    """
    if folder.exists():
        raise ConfigurationError(f"{folder} exists already: give a new folder, or remove it")
    check_packages(onnx)


def check_packages(onnx: bool) -> None:
    """
    # Raises

    `ConfigurationError`, if an ONNX file is to be written and the package for it is not installed.
    """
    if onnx and importlib.util.find_spec("onnx") is None:
        raise ConfigurationError("--onnx needs the package onnx: install allennlp-metaner[onnx]")


def _parts(archive: Archive, source: str) -> _Parts:
    tagger = archive.model
    if not isinstance(tagger, MaxLossTagger):
        raise ConfigurationError(
            f"{source}: the model is a {type(tagger).__name__}, but only taggers of this package "
            "('max_loss_tagger') can be exported"
        )
    if tagger._nearest_words is not None:
        raise ConfigurationError(
            f"{source}: nearest_words, like adaptation, needs support sets, which do not travel with an "
            "export. Export the model without it: -o '{\"model.nearest_words\": null}'"
        )
    embedders = dict(token_embedders(tagger.text_field_embedder))
    reader = archive.validation_dataset_reader
    refuse_masking(reader, "export")
    instance = sentence_instance(["word"])
    reader.apply_token_indexers(instance)
    indexers: dict[str, TokenIndexer] = instance["tokens"].token_indexers or {}  # type: ignore[attr-defined]
    for name, embedder in embedders.items():
        indexer = indexers.get(name)
        if isinstance(indexer, WordTransformerIndexer) and len(embedders) == len(indexers) == 1:
            return _Parts(tagger, embedder, indexer)
    raise ConfigurationError(
        f"{source}: a model can be exported if all it sees of a word is one transformer, a single indexer "
        f"and embedder of type 'word_transformer'; the indexers are {', '.join(indexers) or 'none'}, and the "
        f"'word_transformer' embedders are {', '.join(embedders) or 'none'}"
    )


def _model(parts: _Parts, source: str) -> PreTrainedModel:
    encoder = parts.embedder.encoder
    if encoder.config.model_type not in CLASSES:
        raise ConfigurationError(
            f"{source}: the encoder is of type {encoder.config.model_type!r}, but only those of the types "
            f"{', '.join(CLASSES)} can be exported"
        )
    model = CLASSES[encoder.config.model_type](_config(parts))
    weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pooler.")}
    model.base_model.load_state_dict(weights)
    model.classifier.load_state_dict(parts.tagger.classifier.state_dict())
    return model.eval()


def _config(parts: _Parts) -> PretrainedConfig:
    tagger, embedder = parts.tagger, parts.embedder
    config: PretrainedConfig = copy.deepcopy(embedder.encoder.config)
    # The path where the encoder was found says nothing to anyone else.
    config._name_or_path = ""
    labels = tagger.vocab.get_index_to_token_vocabulary(LABEL_NAMESPACE)
    decoder = tagger._decoder
    # With the tags that labels become in the end, whoever takes the best label reads ignored types and
    # special labels as "O".
    config.id2label = dict(enumerate(decoder.tags))
    config.label2id = {tag: decoder.index(tag) for tag in dict.fromkeys(decoder.tags)}
    config.classifier_dropout = tagger.dropout.p
    settings: ExportSettings = {
        "max_length": embedder.max_length,
        "overlap": embedder.overlap,
        "labels": [label for _, label in sorted(labels.items())],
        "constrain_decoding": decoder.constrained,
        "ignored_types": decoder.ignored_types,
    }
    setattr(config, SETTINGS_KEY, settings)
    return config


def _tokenizer(parts: _Parts) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = copy.deepcopy(parts.indexer._tokenizer)
    # AllenNLP adds special tokens itself; everybody else expects the tokenizer to do it.
    tokenizer.init_kwargs.pop("add_special_tokens", None)
    tokenizer.model_max_length = parts.embedder.max_length
    return tokenizer


class _Logits(torch.nn.Module):
    """A model with tensors in and a tensor out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _write_onnx(folder: Path, model_class: type[PreTrainedModel]) -> None:
    # Plain attention is what onnxruntime knows how to fuse.
    model = model_class.from_pretrained(str(folder), attn_implementation="eager")
    axes = {0: "batch", 1: "sequence"}
    inputs = ("input_ids", "attention_mask")
    example = torch.tensor([[model.config.vocab_size - 1] * 4] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # PyTorch's new exporter (dynamo) takes a minute for what this one does in a second, and needs more
        # packages.
        torch.onnx.export(
            _Logits(model).eval(),
            (example, torch.ones_like(example)),
            str(folder / ONNX_FILE),
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes=dict.fromkeys((*inputs, "logits"), axes),
            opset_version=17,
            dynamo=False,
        )
