"""Subwords to word vectors, through overlapping windows where a sentence is too long for the encoder."""

from collections.abc import Callable
from typing import Any, Optional

import torch
from allennlp.common import cached_transformers
from allennlp.common.checks import ConfigurationError
from allennlp.modules.token_embedders import PretrainedTransformerEmbedder, TokenEmbedder
from transformers import BertModel, PreTrainedModel, RobertaModel, XLMRobertaModel

from allennlp_metaner.data.pretrained_files import max_positions, pretrained_path
from allennlp_metaner.data.windows import windows
from allennlp_metaner.nn.packing import Packing

OUTPUTS = ("words", "subwords")
LIKE_BERT = (BertModel, RobertaModel, XLMRobertaModel)
"""Encoders whose `encoder.layer` is all there is between embeddings and output."""


@TokenEmbedder.register("word_transformer")
class WordTransformerEmbedder(TokenEmbedder):
    """
    A pretrained transformer over the output of the `word_transformer` indexer. Sentences of more than
    `max_length` subwords go through windows of that size, each with the last `overlap` subwords of its
    predecessor in front; every subword has the vector that the window owning it gives
    ([`windows`](../data/windows.md)). Nothing is truncated.

    BERT, RoBERTa and XLM-R run without padding ([`Packing`](../nn/packing.md)), through the modules of their
    layers, so that hooks on a whole layer or on its attention see nothing.

    Registered as a `TokenEmbedder` with name "word_transformer".

    # Parameters

    model_name : `str`
        The name of a `transformers` model on the hub, or its directory.
    max_length : `int`, optional (default = `128`)
        The most subwords a window has, special tokens included.
    overlap : `int`, optional (default = `64`)
        How many of them are overlap from the window before.
    output : `str`, optional (default = `"words"`)
        "words": one vector a word, that of its first subword. "subwords": all of them.
    transformer_kwargs : `dict[str, Any]`, optional (default = `None`)
        Additional arguments for `AutoModel.from_pretrained`, for example dropout probabilities.
    serialization_dir : `str`, optional (default = `None`)
        Given by AllenNLP, see [`pretrained_path`](../data/pretrained_files.md#pretrained_path).

    # Raises

    `ConfigurationError`, if the windows do not fit the encoder or each other.
    """

    def __init__(
        self,
        model_name: str,
        max_length: int = 128,
        overlap: int = 64,
        output: str = "words",
        transformer_kwargs: Optional[dict[str, Any]] = None,
        serialization_dir: Optional[str] = None,
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ConfigurationError(f"output={output!r} must be one of {', '.join(OUTPUTS)}")
        path = pretrained_path(model_name, serialization_dir)
        if transformer_kwargs:
            # AllenNLP keeps loaded encoders by name alone, and would return one with other arguments.
            cached_transformers._clear_caches()
        self._embedder = PretrainedTransformerEmbedder(path, transformer_kwargs=transformer_kwargs)
        if transformer_kwargs:
            cached_transformers._clear_caches()
        self._num_start = self._embedder._num_added_start_tokens
        self._num_end = self._embedder._num_added_end_tokens
        self._window_size = max_length - self._num_start - self._num_end
        positions = max_positions(self._embedder.config) or max_length
        if not 0 <= overlap < self._window_size or max_length > positions:
            raise ConfigurationError(
                f"max_length={max_length} and overlap={overlap} do not fit: max_length may be at most the "
                f"encoder's {positions} positions, and overlap must be less than max_length without the "
                f"{self._num_start + self._num_end} special tokens."
            )
        self.max_length = max_length
        self.overlap = overlap
        self._output = output

    @property
    def encoder(self) -> PreTrainedModel:
        """The `transformers` model."""
        return self._embedder.transformer_model

    def get_output_dim(self) -> int:
        return self._embedder.get_output_dim()

    def forward(
        self,
        token_ids: torch.LongTensor,
        mask: torch.BoolTensor,
        offsets: torch.LongTensor,
        wordpiece_mask: torch.BoolTensor,
        type_ids: torch.LongTensor | None = None,
        bottom: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """
        # Parameters

        token_ids : `torch.LongTensor`
            Shape `(num_sentences, num_subwords)`.
        mask : `torch.BoolTensor`
            Shape `(num_sentences, num_words)`.
        offsets : `torch.LongTensor`
            First and last subword of every word, shape `(num_sentences, num_words, 2)`.
        wordpiece_mask : `torch.BoolTensor`
            Shape `(num_sentences, num_subwords)`.
        type_ids : `torch.LongTensor`, optional (default = `None`)
            Shape `(num_sentences, num_subwords)`.
        bottom : `list[torch.Tensor]`, optional (default = `None`)
            What [`bottom`](#bottom) returns for these sentences, to start from.

        # Returns

        `torch.Tensor`
            Shape `(num_sentences, num_words or num_subwords, dim)`.
        """
        first = offsets[:, :, 0]
        if token_ids.size(1) <= self.max_length and self._is_like_bert():
            packing = Packing(wordpiece_mask)
            if bottom is None:
                rows, num_done = packing.pack(self._embeddings(token_ids, type_ids)), 0
            else:
                rows, num_done = torch.cat(bottom), self._num_frozen()
            rows = self._through_layers(rows, packing, num_done, None)
            return packing.unpack(rows) if self._output == "subwords" else packing.select(rows, first)
        if token_ids.size(1) <= self.max_length:
            vectors = self._embedder(token_ids, wordpiece_mask, type_ids)
        else:
            vectors = self._through_windows(self._embedder, token_ids, wordpiece_mask, type_ids)
        if self._output == "subwords":
            return vectors
        return vectors.gather(1, first.unsqueeze(2).expand(-1, -1, vectors.size(2)))

    def num_packed_rows(self, wordpiece_mask: torch.Tensor) -> list[int] | None:
        """
        The number of rows of each sentence, `wordpiece_mask` of shape `(num_sentences, num_subwords)`. `None`
        if layers run on padded sentences or on windows.
        """
        if not self._is_like_bert() or wordpiece_mask.size(1) > self.max_length:
            return None
        return wordpiece_mask.sum(dim=1).tolist()

    def bottom(
        self,
        token_ids: torch.LongTensor,
        wordpiece_mask: torch.BoolTensor,
        type_ids: torch.LongTensor | None = None,
        **others: torch.Tensor,
    ) -> list[torch.Tensor] | None:
        """
        The output of the frozen bottom layers, which is the same for all tasks. `None` where there are none,
        where a sentence needs windows, and for encoders that are not built like BERT.

        # Returns

        `list[torch.Tensor]`, optional
            Of each sentence, without padding, shape `(num_subwords, dim)`.
        """
        num_frozen = self._num_frozen()
        if not num_frozen or token_ids.size(1) > self.max_length:
            return None
        packing = Packing(wordpiece_mask)
        rows = self._through_layers(
            packing.pack(self._embeddings(token_ids, type_ids)), packing, 0, num_frozen
        )
        return list(rows.split(packing.lengths))

    def word_vectors(
        self,
        token_ids: torch.LongTensor,
        mask: torch.BoolTensor,
        offsets: torch.LongTensor,
        wordpiece_mask: torch.BoolTensor,
        type_ids: torch.LongTensor | None = None,
        num_layers: int = 3,
    ) -> torch.Tensor:
        """
        Vectors by which words can be compared: the mean over a word's subwords of the mean of the last
        `num_layers` layers, L2-normalised. For the other arguments see [`forward`](#forward).

        # Returns

        `torch.Tensor`
            Shape `(num_sentences, num_words, dim)`.
        """
        transformer = self._embedder.transformer_model

        def encode(ids: torch.Tensor, seen: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
            others = {} if types is None or not types.any() else {"token_type_ids": types}
            output = transformer(
                input_ids=ids, attention_mask=seen.long(), output_hidden_states=True, **others
            )
            return torch.stack(output.hidden_states[-num_layers:]).mean(dim=0)

        encoded = self._through_windows(encode, token_ids, wordpiece_mask, type_ids)
        position = torch.arange(token_ids.size(1), device=token_ids.device)
        within = (position >= offsets[..., :1]) & (position <= offsets[..., 1:]) & mask.unsqueeze(2)
        return torch.nn.functional.normalize(within.to(encoded.dtype) @ encoded, dim=-1)

    def _is_like_bert(self) -> bool:
        transformer = self._embedder.transformer_model
        return (
            type(transformer) in LIKE_BERT
            and getattr(transformer.config, "position_embedding_type", "absolute") == "absolute"
            and not transformer.config.is_decoder
            and not transformer.encoder.gradient_checkpointing
        )

    def _num_frozen(self) -> int:
        """The number of frozen layers at the bottom, above frozen embeddings."""
        transformer = self._embedder.transformer_model
        if not self._is_like_bert() or _trainable(transformer.embeddings):
            return 0
        return next((n for n, layer in enumerate(transformer.encoder.layer) if _trainable(layer)), 0)

    def _embeddings(self, token_ids: torch.Tensor, type_ids: torch.Tensor | None) -> torch.Tensor:
        if type_ids is not None and not type_ids.any():
            type_ids = None
        vectors: torch.Tensor = self._embedder.transformer_model.embeddings(
            input_ids=token_ids, token_type_ids=type_ids
        )
        return vectors

    def _through_layers(
        self, rows: torch.Tensor, packing: Packing, first: int, last: int | None
    ) -> torch.Tensor:
        """The layers' own modules but for attention, which is all that would need padding."""
        for layer in self._embedder.transformer_model.encoder.layer[first:last]:
            attention = layer.attention.self
            attended = packing.attention(
                attention.query(rows),
                attention.key(rows),
                attention.value(rows),
                attention.num_attention_heads,
                attention.dropout.p if attention.training else 0.0,
            )
            rows = layer.attention.output(attended, rows)
            rows = layer.output(layer.intermediate(rows), rows)
        return rows

    def _through_windows(
        self,
        encode: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
        token_ids: torch.Tensor,
        wordpiece_mask: torch.Tensor,
        type_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        rows, positions, owned = self._plan(wordpiece_mask.sum(dim=1).tolist())
        width = max(map(len, positions))
        # Position -1 pads a window; it is clamped where something must be looked up, and masked.
        columns = torch.tensor([p + [-1] * (width - len(p)) for p in positions], device=token_ids.device)
        row = torch.tensor(rows, device=token_ids.device).unsqueeze(1)
        window_mask = columns >= 0
        columns = columns.clamp(min=0)
        vectors = encode(
            token_ids[row, columns],
            window_mask,
            None if type_ids is None else type_ids[row, columns],
        )
        keep = torch.zeros_like(window_mask)
        for number, (first, last) in enumerate(owned):
            keep[number, first:last] = True
        joined = vectors.new_zeros(*token_ids.shape, vectors.size(2))
        joined[row.expand_as(columns)[keep], columns[keep]] = vectors[keep]
        return joined

    def _plan(self, lengths: list[int]) -> tuple[list[int], list[list[int]], list[tuple[int, int]]]:
        """
        For every window of every sentence: the sentence's row, the positions of the sentence that the window
        sees (special tokens first and last), and which stretch of the window it owns.
        """
        rows: list[int] = []
        positions: list[list[int]] = []
        owned: list[tuple[int, int]] = []
        for row, length in enumerate(lengths):
            end_tokens = list(range(length - self._num_end, length))
            size = length - self._num_start - self._num_end
            for window in windows(size, self._window_size, self.overlap):
                content = range(self._num_start + window.start, self._num_start + window.end)
                rows.append(row)
                positions.append([*range(self._num_start), *content, *end_tokens])
                # The first window also owns the special tokens before it, the last one those after it.
                first = 0 if window.start == 0 else self._num_start + window.keep - window.start
                last = len(positions[-1]) - (0 if window.end == size else self._num_end)
                owned.append((first, last))
        return rows, positions, owned


def _trainable(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
