"""Masks: on entity words and no others, as often as they should be, and drawn anew for every batch."""

import random
from typing import Any

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, DatasetReader, Instance, Token, TokenIndexer, Vocabulary
from allennlp.data.dataset_readers import InterleavingDatasetReader
from allennlp.data.fields import TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer
from allennlp.data.tokenizers import PretrainedTransformerTokenizer

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.entity_masking_indexer import EntityMaskingIndexer, refuse_masking
from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.retrieval.retriever import Retriever
from allennlp_metaner.retrieval.sentence_encoder import TransformerSentenceEncoder
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader

MASK = 4  # of the tiny encoder
WORDS = ["Maria", "Londons", "visited", "qwerty", "."]
TAGS = ["B-PER", "I-PER", "O", "B-LOC", "O"]
# Subwords: maria | london ##s | visited | q ##w ##er ##t ##y | .
ENTITY_POSITIONS = [[1], [2, 3], [5, 6, 7, 8, 9]]
WRAPPED = ["word_transformer", "pretrained_transformer_mismatched"]


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(1)


def masking(encoder: str, inner: str = "word_transformer", **arguments: Any) -> EntityMaskingIndexer:
    return EntityMaskingIndexer(TokenIndexer.by_name(inner)(model_name=encoder), **arguments)


def instance(indexer: TokenIndexer) -> Instance:
    found = sentence_instance(WORDS, TAGS)
    found["tokens"].token_indexers = {"tokens": indexer}  # type: ignore[attr-defined]
    found.index_fields(Vocabulary.from_instances([found]))
    return found


def tensors(*instances: Instance) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = Batch(instances).as_tensor_dict()["tokens"]["tokens"]
    return found


def masked_positions(row: torch.Tensor) -> list[int]:
    return [position for position, token_id in enumerate(row.tolist()) if token_id == MASK]


@pytest.mark.parametrize("inner", WRAPPED)
@pytest.mark.parametrize("first_subword_only", [False, True])
def test_certain_masks(tiny_encoder: str, inner: str, first_subword_only: bool) -> None:
    indexer = masking(tiny_encoder, inner, probability=1.0, first_subword_only=first_subword_only)
    expected = [p for word in ENTITY_POSITIONS for p in (word[:1] if first_subword_only else word)]
    row = tensors(instance(indexer))["token_ids"][0]
    assert masked_positions(row) == expected
    plain = tensors(instance(TokenIndexer.by_name(inner)(model_name=tiny_encoder)))["token_ids"][0]
    assert [int(a) for i, a in enumerate(row) if i not in expected] == [
        int(a) for i, a in enumerate(plain) if i not in expected
    ]


@pytest.mark.parametrize("inner", WRAPPED)
def test_no_masks_and_no_other_tensors(tiny_encoder: str, inner: str) -> None:
    found = tensors(instance(masking(tiny_encoder, inner, probability=0.0)))
    expected = tensors(instance(TokenIndexer.by_name(inner)(model_name=tiny_encoder)))
    # The embedder gets every key as an argument: there must be no further one.
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_rate(tiny_encoder: str) -> None:
    sentences = [instance(masking(tiny_encoder, probability=0.2))] * 2000
    masks = tensors(*sentences)["token_ids"] == MASK
    for first, *rest in ENTITY_POSITIONS:
        # 2000 draws: a standard deviation is 0.009.
        assert masks[:, first].float().mean().item() == pytest.approx(0.2, abs=0.045)
        # All subwords of a word, or none.
        assert all(torch.equal(masks[:, first], masks[:, other]) for other in rest)
    # Words are drawn on their own: 0.2 * 0.2 have both of two words masked.
    assert (masks[:, 1] & masks[:, 2]).float().mean().item() == pytest.approx(0.04, abs=0.022)
    others = [0, 4, 10, 11]
    assert not masks[:, others].any()


def test_masks_are_drawn_anew_whenever_a_sentence_is_batched(tiny_encoder: str) -> None:
    sentence = instance(masking(tiny_encoder, probability=0.5))
    epochs = [tensors(sentence)["token_ids"][0].tolist() for _ in range(20)]
    assert len({tuple(row) for row in epochs}) > 3
    # And the same again from the same seed.
    random.seed(1)
    assert [tensors(sentence)["token_ids"][0].tolist() for _ in range(20)] == epochs


def test_sentences_without_known_tags_are_not_masked(tiny_encoder: str) -> None:
    found = sentence_instance(WORDS)
    found["tokens"].token_indexers = {"tokens": masking(tiny_encoder, probability=1.0)}  # type: ignore[attr-defined]
    found.index_fields(Vocabulary())
    assert not masked_positions(tensors(found)["token_ids"][0])


def test_wraps_pretrained_transformer(tiny_encoder: str) -> None:
    tokens = PretrainedTransformerTokenizer(tiny_encoder).tokenize("Maria visited qwerty")
    for token in tokens:
        token.ent_type_ = "B-LOC" if token.text in ("q", "##w") else "O"
    field = TextField(tokens, {"tokens": masking(tiny_encoder, "pretrained_transformer", probability=1.0)})
    field.index(Vocabulary())
    found = field.as_tensor(field.get_padding_lengths())["tokens"]
    assert masked_positions(found["token_ids"]) == [3, 4]
    assert "entity_offsets" not in found


def test_words_without_subwords_are_passed_over(tiny_encoder: str) -> None:
    # AllenNLP's indexer gives such a word no subword to mask.
    indexer = masking(tiny_encoder, "pretrained_transformer_mismatched", probability=1.0)
    tokens = [Token("\u200b", ent_type_="B-PER"), Token("paris", ent_type_="B-LOC")]
    field = TextField(tokens, {"tokens": indexer})
    field.index(Vocabulary())
    found = field.as_tensor(field.get_padding_lengths())["tokens"]["token_ids"]
    assert masked_positions(found) == [1]


@pytest.mark.parametrize("inner", [*WRAPPED, "pretrained_transformer"])
def test_empty_text(tiny_encoder: str, inner: str) -> None:
    indexer = masking(tiny_encoder, inner, probability=1.0)
    empty = TextField([Token("a")], {"tokens": indexer}).empty_field()
    padding = dict.fromkeys(empty.get_padding_lengths(), 3)
    found = empty.as_tensor(padding)["tokens"]
    assert found["token_ids"].tolist() == [0, 0, 0]
    assert "entity_offsets" not in found
    assert "entity_offsets" in indexer.get_empty_token_list()


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_bad_probability(tiny_encoder: str, probability: float) -> None:
    with pytest.raises(ConfigurationError, match=f"probability={probability}"):
        masking(tiny_encoder, probability=probability)


def test_indexer_without_masks() -> None:
    with pytest.raises(ConfigurationError, match="SingleIdTokenIndexer, which has no tokenizer with a mask"):
        EntityMaskingIndexer(SingleIdTokenIndexer())


@pytest.mark.parametrize("inner", ["pretrained_transformer_mismatched", "pretrained_transformer"])
def test_folded_text_is_refused(tiny_encoder: str, inner: str) -> None:
    indexer = EntityMaskingIndexer(TokenIndexer.by_name(inner)(model_name=tiny_encoder, max_length=8))
    with pytest.raises(ConfigurationError, match="max_length"):
        indexer.tokens_to_indices([Token("paris")] * 20, Vocabulary())


def wrapped(reader: DatasetReader, encoder: str, **arguments: Any) -> PseudoTaskReader:
    return PseudoTaskReader(reader, Retriever(TransformerSentenceEncoder(encoder)), **arguments)


def test_refuse_masking(tiny_encoder: str) -> None:
    plain = ColumnReader({"tokens": TokenIndexer.by_name("word_transformer")(model_name=tiny_encoder)})
    masks = ColumnReader({"ids": SingleIdTokenIndexer(), "tokens": masking(tiny_encoder)})
    for reader in (
        masks,
        wrapped(masks, tiny_encoder),
        wrapped(plain, tiny_encoder, pool_reader=masks),
        InterleavingDatasetReader({"a": plain, "b": wrapped(masks, tiny_encoder)}),
    ):
        with pytest.raises(ConfigurationError, match=r"for my purpose masks .*validation_dataset_reader"):
            refuse_masking(reader, "my purpose")
    for reader in (plain, wrapped(plain, tiny_encoder), InterleavingDatasetReader({"a": plain})):
        refuse_masking(reader, "my purpose")
