"""What the frozen layers of a tagger's encoder give, once for many passes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from allennlp.modules import TextFieldEmbedder

from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder
from allennlp_metaner.nn.collate import Joined


class FrozenOutputs:
    """
    The methods `prepared` and `num_packed_rows` of a [`Learner`](../meta/fast_weights.md#learner), for a
    model with a `text_field_embedder`.
    """

    text_field_embedder: TextFieldEmbedder

    def prepared(self, batches: Sequence[dict[str, Any]]) -> Joined:
        """
        The batches, with the outputs of the encoder's frozen layers where there are any: these are the same
        whatever values the trainable parameters have, and are computed for all batches in one pass.

        # Parameters

        batches : `Sequence[dict[str, Any]]`

        # Returns

        `Joined`
            Batches for [`losses`](./max_loss_tagger.md#losses) and [`forward`](./max_loss_tagger.md#forward).
        """
        joined = Joined.of(batches)
        tokens = dict(joined.whole["tokens"])
        for name, embedder in token_embedders(self.text_field_embedder):
            with torch.no_grad():
                bottom = embedder.bottom(**tokens[name])
            if bottom is not None:
                tokens[name] = {**tokens[name], "bottom": bottom}
        return joined.replaced(tokens=tokens)

    def num_packed_rows(self, batches: Sequence[dict[str, Any]]) -> list[list[int]]:
        """
        The number of rows of each batch in the layers of an encoder that runs on packed sentences, in a pass
        of all batches.

        # Parameters

        batches : `Sequence[dict[str, Any]]`

        # Returns

        `list[list[int]]`
            For each embedder that packs sentences, a number a batch.
        """
        joined = Joined.of(batches)
        found = [
            embedder.num_packed_rows(joined.whole["tokens"][name]["wordpiece_mask"])
            for name, embedder in token_embedders(self.text_field_embedder)
        ]
        return [joined.sums(numbers) for numbers in found if numbers is not None]


def token_embedders(embedder: TextFieldEmbedder) -> Iterator[tuple[str, WordTransformerEmbedder]]:
    """The "word_transformer" embedders of a text field, with the names of their indexers."""
    for name, child in getattr(embedder, "_token_embedders", {}).items():
        if isinstance(child, WordTransformerEmbedder):
            yield name, child
