"""Random masking of entity words, so that the model leans on their context."""

import random
from typing import Any

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader
from allennlp.data.token_indexers import TokenIndexer
from allennlp.data.token_indexers.token_indexer import IndexedTokenList
from allennlp.data.tokenizers import Token
from allennlp.data.vocabulary import Vocabulary


@TokenIndexer.register("entity_masking")
class EntityMaskingIndexer(TokenIndexer):
    """
    Wraps a transformer indexer and replaces each word inside an entity by `[MASK]` with a fixed probability.
    The draw is made anew whenever a sentence is batched, so at least once an epoch. It belongs into the
    *training* reader alone: trainer, evaluator and predictor refuse a reader for validation or adaptation
    that masks ([`refuse_masking`](#refuse_masking)). And with gradients off, as they are in the validation
    and evaluation of any other trainer or evaluator of AllenNLP, nothing is masked.

    Which words are inside an entity is read from `Token.ent_type_`, where the readers of this package put the
    tag: any value but "" and "O" is an entity.

    Draws come from Python's `random`, which the trainers of this package seed for every epoch, and their data
    loader, "sharded", for every sentence of a batch.

    Registered as a `TokenIndexer` with name "entity_masking".

    # Parameters

    indexer : `TokenIndexer`
        The wrapped indexer: `word_transformer`, `pretrained_transformer_mismatched` or
        `pretrained_transformer`, without `max_length`.
    probability : `float`, optional (default = `0.2`)
        The probability of a mask, per word.
    first_subword_only : `bool`, optional (default = `False`)
        Mask only the first subword of the word (the authors' published code) instead of all of them.

    # Raises

    `ConfigurationError`, for a probability outside of [0, 1] and an indexer whose tokenizer has no mask.
    """

    def __init__(
        self,
        indexer: TokenIndexer,
        probability: float = 0.2,
        first_subword_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= probability <= 1.0:
            raise ConfigurationError(
                f"probability={probability} of 'entity_masking' must lie between 0 and 1"
            )
        mask_id = getattr(getattr(indexer, "_tokenizer", None), "mask_token_id", None)
        if mask_id is None:
            raise ConfigurationError(
                f"'entity_masking' wraps {type(indexer).__name__}, which has no tokenizer with a mask token. "
                "Wrap 'word_transformer' or one of AllenNLP's 'pretrained_transformer' indexers, with a "
                "masked language model such as BERT or XLM-R."
            )
        self._mask_id: int = mask_id
        self._indexer = indexer
        self._probability = probability
        self._first_subword_only = first_subword_only

    def count_vocab_items(self, token: Token, counter: dict[str, dict[str, int]]) -> None:
        self._indexer.count_vocab_items(token, counter)

    def tokens_to_indices(self, tokens: list[Token], vocabulary: Vocabulary) -> IndexedTokenList:
        indexed = self._indexer.tokens_to_indices(tokens, vocabulary)
        if "segment_concat_mask" in indexed:
            raise ConfigurationError(
                "'entity_masking' cannot wrap an indexer with max_length: take it away there, and let the "
                "'word_transformer' embedder make the windows."
            )
        offsets = indexed.get("offsets") or [(i, i) for i in range(len(tokens))]
        indexed["entity_offsets"] = [
            offset
            for token, offset in zip(tokens, offsets, strict=True)
            if token.ent_type_ not in (None, "", "O") and offset[0] >= 0
        ]
        return indexed

    def get_empty_token_list(self) -> IndexedTokenList:
        return {**self._indexer.get_empty_token_list(), "entity_offsets": []}

    def as_padded_tensor_dict(
        self, tokens: IndexedTokenList, padding_lengths: dict[str, int]
    ) -> dict[str, torch.Tensor]:
        inner = {key: value for key, value in tokens.items() if key != "entity_offsets"}
        inner["token_ids"] = self._masked(tokens["token_ids"], tokens["entity_offsets"])
        lengths = {key: value for key, value in padding_lengths.items() if key != "entity_offsets"}
        return self._indexer.as_padded_tensor_dict(inner, lengths)

    def _masked(self, token_ids: list[int], entity_offsets: list[tuple[int, int]]) -> list[int]:
        masked = list(token_ids)
        if not torch.is_grad_enabled():
            return masked
        for first, last in entity_offsets:
            if random.random() < self._probability:
                last = first if self._first_subword_only else last
                masked[first : last + 1] = [self._mask_id] * (last - first + 1)
        return masked


def refuse_masking(reader: DatasetReader, purpose: str) -> None:
    """
    Raise a `ConfigurationError` if `reader`, or a reader it wraps, masks entity words.

    # Parameters

    reader : `DatasetReader`
    purpose : `str`
        What the reader is used for, for the message: "validation", "adaptation", ...
    """
    if _masks(reader):
        raise ConfigurationError(
            f"the reader used for {purpose} masks entity words (token indexer 'entity_masking'), which "
            "belongs to training only. Give the config a 'validation_dataset_reader' (and a "
            "'validation_data_loader') of its own, with the indexer 'word_transformer'."
        )


def _masks(reader: DatasetReader) -> bool:
    """Whether a token indexer of `reader`, or of a reader that it holds, alone or among others, masks."""
    for attribute in vars(reader).values():
        values = attribute.values() if isinstance(attribute, dict) else attribute
        for value in values if isinstance(attribute, (dict, list, tuple)) else [attribute]:
            if isinstance(value, EntityMaskingIndexer) or (
                isinstance(value, DatasetReader) and _masks(value)
            ):
                return True
    return False
