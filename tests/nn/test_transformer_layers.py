"""Hidden states after the lower layers are the whole model's; the upper ones do not run where that can be."""

from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMConfig,
    XLMRobertaConfig,
    XLMRobertaXLConfig,
)

from allennlp_metaner.nn.transformer_layers import hidden_states_after, transformer_layers

SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
CUT = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
    "electra": ElectraConfig(**SIZES, embedding_size=8),
    "deberta-v2": DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "distilbert": DistilBertConfig(vocab_size=20, dim=8, n_layers=4, n_heads=2, hidden_dim=8),
}
WHOLE = {
    # One layer, four times.
    "albert": AlbertConfig(**SIZES, embedding_size=8),
    # Normalises what comes out of the last layer.
    "xlm-roberta-xl": XLMRobertaXLConfig(**SIZES),
    # The parts of its layers are in lists of their own.
    "xlm": XLMConfig(vocab_size=20, emb_dim=8, n_layers=4, n_heads=2),
}


def make(config: PretrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 1, 1]])
    return ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.mark.parametrize("name", [*CUT, *WHOLE])
@pytest.mark.parametrize("number", [1, 2, 4])
@torch.inference_mode()
def test_equals_the_whole_model(name: str, number: int, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = make({**CUT, **WHOLE}[name])
    ids, mask = inputs
    expected = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[number]
    assert torch.equal(hidden_states_after(model, number)(ids, mask), expected)


@pytest.mark.parametrize("name", CUT)
@torch.inference_mode()
def test_upper_layers_do_not_run(name: str, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model, run = make(CUT[name]), []
    layers = transformer_layers(model)
    assert layers is not None
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: run.append(number))
    states = hidden_states_after(model, 2)
    run.clear()
    states(*inputs)
    assert run == [0, 1]


@torch.inference_mode()
def test_the_model_stays_and_weights_are_shared(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = make(CUT["bert"])
    before = hidden_states_after(model)(*inputs)
    states = hidden_states_after(model, 2)
    found = states(*inputs)
    assert torch.equal(hidden_states_after(model)(*inputs), before)
    assert model.config.num_hidden_layers == 4 and len(model.encoder.layer) == 4
    for parameter in (model.embeddings.word_embeddings.weight, model.encoder.layer[0].output.dense.weight):
        parameter.mul_(2)
        changed = states(*inputs)
        assert not torch.equal(changed, found)
        found = changed


def test_no_list_of_layers() -> None:
    assert transformer_layers(make(WHOLE["albert"])) is None
