"""Taggers with random weights, of any size, and tasks of random subwords for them."""

from typing import Any

import torch
from allennlp.data import Vocabulary
from allennlp.modules import TextFieldEmbedder
from transformers import BertConfig, BertModel

from allennlp_metaner.data.sentence import LABEL_NAMESPACE
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger

LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")


class _Embedder(TextFieldEmbedder):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transformer = BertModel(config, add_pooling_layer=False)

    def forward(self, text_field_input: Any, num_wrapping_dims: int = 0, **kwargs: Any) -> torch.Tensor:
        return self.transformer(text_field_input["tokens"]["token_ids"]).last_hidden_state

    def get_output_dim(self) -> int:
        return self.transformer.config.hidden_size


def random_tagger(hidden: int, layers: int, vocabulary: int) -> MaxLossTagger:
    """With BERT's proportions: heads of 64, and an inner size of four times the hidden one."""
    vocab = Vocabulary(non_padded_namespaces=[LABEL_NAMESPACE])
    for label in LABELS:
        vocab.add_token_to_namespace(label, LABEL_NAMESPACE)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )
    torch.manual_seed(0)
    return MaxLossTagger(vocab, _Embedder(config)).train()


def random_tasks(number: int, length: int) -> list[dict[str, Any]]:
    """Tasks of a query and two support sentences, each of `length` subwords."""

    def batch(rows: int) -> dict[str, Any]:
        ids = torch.randint(5, 1000, (rows, length))
        tokens = {"tokens": {"token_ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}}
        return {"tokens": tokens, "tags": torch.randint(0, len(LABELS), (rows, length))}

    torch.manual_seed(0)
    return [{"query": batch(1), "support": batch(2)} for _ in range(number)]
