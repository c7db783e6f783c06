"""Which parameters are frozen, by number of layers."""

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from allennlp_metaner.models.freezing import freeze_bottom

BERT = {"vocab_size": 10, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}


def model(num_layers: int = 3) -> torch.nn.ModuleDict:
    config = BertConfig(num_hidden_layers=num_layers, **BERT)
    return torch.nn.ModuleDict({"inner": BertModel(config), "head": torch.nn.Linear(4, 2)})


@pytest.mark.parametrize("number", [0, 1, 3])
def test_exactly_the_bottom_is_frozen(number: int) -> None:
    found = model()
    freeze_bottom(found, number)
    frozen = {name for name, parameter in found.named_parameters() if not parameter.requires_grad}
    prefixes = ["inner.embeddings.", "inner.pooler.", *(f"inner.encoder.layer.{i}." for i in range(number))]
    expected = {name for name, _ in found.named_parameters() if name.startswith(tuple(prefixes))}
    assert frozen == expected
    assert len(frozen) == 5 + 2 + 16 * number
    assert found["head"].weight.requires_grad


@pytest.mark.parametrize("number", [-1, 4])
def test_out_of_range(number: int) -> None:
    with pytest.raises(ConfigurationError, match=f"frozen_layers={number} .* 3 layers"):
        freeze_bottom(model(), number)


def test_nothing_to_freeze() -> None:
    with pytest.raises(ConfigurationError, match="no transformer"):
        freeze_bottom(torch.nn.Linear(2, 2), 0)


def test_another_architecture() -> None:
    config = DistilBertConfig(vocab_size=10, dim=4, n_layers=2, n_heads=1, hidden_dim=4)
    found = DistilBertModel(config)
    freeze_bottom(found, 1)
    frozen = {name.split(".layer.")[-1][:2] for name, p in found.named_parameters() if not p.requires_grad}
    assert frozen == {"em", "0."}
