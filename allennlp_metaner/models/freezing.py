"""Freezing the lower part of a transformer."""

import torch
from allennlp.common.checks import ConfigurationError
from transformers import PreTrainedModel

from allennlp_metaner.nn.transformer_layers import transformer_layers


def freeze_bottom(model: torch.nn.Module, num_layers: int) -> None:
    """
    Freeze the embeddings and the bottom `num_layers` layers of every transformer inside `model`, and its
    pooler, which a tagger does not use.

    # Parameters

    model : `torch.nn.Module`
    num_layers : `int`
        At least 0 (the embeddings only) and at most the number of layers.

    # Raises

    `ConfigurationError`, if there is no transformer, or `num_layers` is out of range.
    """
    transformers = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not transformers:
        raise ConfigurationError("frozen_layers is set, but the model contains no transformer to freeze")
    for transformer in transformers:
        layers = transformer_layers(transformer)
        if layers is None:
            raise ConfigurationError(
                f"frozen_layers: {type(transformer).__name__} has no list of "
                f"{transformer.config.num_hidden_layers} layers, so its lower layers cannot be told apart. "
                "Use an encoder such as BERT, XLM-R or DistilBERT, or frozen_layers = null."
            )
        if not 0 <= num_layers <= len(layers):
            raise ConfigurationError(
                f"frozen_layers={num_layers} must lie between 0 and the encoder's {len(layers)} layers, "
                "or be null to freeze nothing"
            )
        frozen = [transformer.get_input_embeddings(), *layers[:num_layers]]
        for name in ("embeddings", "pooler"):
            if isinstance(getattr(transformer, name, None), torch.nn.Module):
                frozen.append(getattr(transformer, name))
        for module in frozen:
            module.requires_grad_(False)
