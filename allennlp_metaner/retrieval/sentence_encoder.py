"""Sentence vectors from a pretrained encoder, for the cosine similarity between sentences (Eq. 5 and 6)."""

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Optional, Union

import numpy as np
import torch
from allennlp.common import Registrable, Tqdm, cached_transformers
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import int_to_device
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.data.characters import for_tokenizer
from allennlp_metaner.data.pretrained_files import is_archived, max_positions, pretrained_path
from allennlp_metaner.nn.linear import FastLinear
from allennlp_metaner.nn.transformer_layers import HiddenStates, hidden_states_after

logger = logging.getLogger(__name__)

_POOLINGS = ("cls", "mean")
# Vary between a model and its copy in an archive, and no hidden state depends on them.
_IRRELEVANT_CONFIG = ("_name_or_path", "architectures", "torch_dtype", "transformers_version")
# Fewer batches than this are done before a progress bar can be read.
_MIN_BATCHES_SHOWN = 10


class SentenceEncoder(Registrable):
    """
    Turns sentences into vectors whose dot product is their similarity.

    The vectors must not depend on the other sentences of a call beyond float rounding, and equal sentences of
    one call must get equal vectors.
    """

    default_implementation = "transformer"

    def encode(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """
        # Parameters

        sentences : `Sequence[Sequence[str]]`
            The words of each sentence.

        # Returns

        `np.ndarray`
            float32, shape `(num_sentences, dim)`; every row has the L2 norm 1.
        """
        raise NotImplementedError

    def fingerprint(self) -> str:
        """
        # Returns

        `str`
            A hex digest of everything the vectors depend on, the sentences apart.
        """
        raise NotImplementedError


@SentenceEncoder.register("transformer")
class TransformerSentenceEncoder(SentenceEncoder):
    """
    The pretrained, *not* fine-tuned encoder's final hidden state of `[CLS]` (Eq. 5), or the mean over the
    subwords.

    A sentence of more than `max_length` subwords has the vector of its first `max_length - 2` subwords and
    the two special tokens; a sentence without any subword has the vector of the special tokens alone.

    The model is loaded when it is first needed; at once, however, if it comes from an archive, whose unpacked
    directory vanishes after loading. Neither loading nor encoding changes the global random state.

    Registered as a `SentenceEncoder` with name "transformer".

    # Parameters

    model_name : `str`
        A directory, or a name on the model hub.
    pooling : `str`, optional (default = `"cls"`)
        `"cls"`: the final hidden state of the first special token (Eq. 5). `"mean"`: the mean of the final
        hidden states of all subwords, the special tokens included.
    layer : `Union[int, str]`, optional (default = `None`)
        Take the hidden states after this layer, from 1, or "middle", instead of the final ones.
    max_length : `int`, optional (default = `128`)
        The limit in subwords, special tokens included.
    tokens_per_batch : `int`, optional (default = `4096`)
        The size of a batch in subwords, padding included. A sentence above it is a batch of its own.
    cuda_device : `int`, optional (default = `None`)
        The GPU to use; -1 means the CPU. `None` follows the model: the GPU that this process uses already
        (in `allennlp evaluate --cuda-device 0`, for example), and else the CPU. Forked worker processes of
        readers, which cannot use their parent's GPU, take the CPU, and so does a machine without a GPU,
        whatever an archive says.
    serialization_dir : `str`, optional (default = `None`)
        Given by AllenNLP: where an archive's copy of the encoder is made or found.

    # Raises

    `ConfigurationError`, if `pooling` is unknown or (when the model is loaded) `max_length` or `layer` does
    not fit the model.
    """

    def __init__(
        self,
        model_name: str,
        pooling: str = "cls",
        max_length: int = 128,
        tokens_per_batch: int = 4096,
        cuda_device: Optional[int] = None,
        serialization_dir: Optional[str] = None,
        layer: Union[int, str, None] = None,
    ) -> None:
        if pooling not in _POOLINGS:
            raise ConfigurationError(f"pooling={pooling!r} is unknown: choose one of {', '.join(_POOLINGS)}.")
        self._path = pretrained_path(model_name, serialization_dir)
        self._pooling = pooling
        self._layer = layer
        self._max_length = max_length
        self._tokens_per_batch = tokens_per_batch
        self._cuda_device = cuda_device
        self._loaded: tuple[PreTrainedTokenizerBase, PreTrainedModel] | None = None
        self._copy: tuple[torch.device, PreTrainedModel] | None = None
        self._states: tuple[PreTrainedModel, HiddenStates] | None = None
        self._fingerprint: str | None = None
        if is_archived(self._path, serialization_dir):
            self._load()

    @exclusive()
    def encode(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        tokenizer, model = self._load()
        if not sentences:
            return np.empty((0, model.config.hidden_size), dtype=np.float32)
        encoded = tokenizer(
            [list(map(for_tokenizer, words)) for words in sentences],
            is_split_into_words=True,
            truncation=True,
            max_length=self._max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        # Float rounding depends on the rest of a batch. Encoding each distinct sentence once makes equal
        # sentences exactly equal; sorting by length leaves hardly any padding.
        rows: dict[tuple[int, ...], int] = {}
        for ids in sorted(map(tuple, encoded["input_ids"]), key=lambda ids: (len(ids), ids)):
            rows.setdefault(ids, len(rows))
        model = self._on(encoding_device(self._cuda_device), model)
        distinct = self._encode_ids(list(rows), model, tokenizer.pad_token_id or 0)
        return distinct[[rows[tuple(ids)] for ids in encoded["input_ids"]]]

    @exclusive()
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            tokenizer, model = self._load()
            config = {
                key: value for key, value in model.config.to_dict().items() if key not in _IRRELEVANT_CONFIG
            }
            state = _tokenizer_state(tokenizer)
            settings: list[Any] = [type(self).__name__, self._pooling, self._max_length, config, state]
            if self._layer is not None:
                # Vectors of the final layer keep the digest that they had when there was no choice.
                settings.append(self._layer_of(model))
            digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
            for name, tensor in model.named_parameters():
                # The pooler comes after the hidden states; where a checkpoint lacks it, it is random.
                if not name.startswith("pooler."):
                    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                    digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _load(self) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
        if self._loaded is None:
            tokenizer = cached_transformers.get_tokenizer(self._path)
            if getattr(tokenizer, "add_prefix_space", None) is False:
                # RoBERTa's tokenizer refuses words without it.
                tokenizer = cached_transformers.get_tokenizer(self._path, add_prefix_space=True)
            # A checkpoint without a pooler has it drawn at random.
            with torch.random.fork_rng(devices=[]):
                model = cached_transformers.get(self._path, make_copy=False)
            self._check(tokenizer, model)
            self._loaded = tokenizer, model
        return self._loaded

    def _on(self, device: torch.device, model: PreTrainedModel) -> PreTrainedModel:
        """The model on a device. Others share the one on the CPU, so that stays, and a GPU gets a copy."""
        if device == torch.device("cpu"):
            return model
        if self._copy is None or self._copy[0] != device:
            self._copy = device, copy.deepcopy(model).to(device)
        return self._copy[1]

    def _check(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        num_special = tokenizer.num_special_tokens_to_add()
        limit = max_positions(model.config)
        if self._max_length <= num_special or (limit is not None and self._max_length > limit):
            raise ConfigurationError(
                f"max_length={self._max_length} does not fit the encoder {self._path!r}, "
                f"which adds {num_special} special tokens and has {limit or 'any number of'} positions."
            )
        layer, last = self._layer_of(model), model.config.num_hidden_layers
        if not isinstance(layer, int) or not 1 <= layer <= last:
            raise ConfigurationError(
                f"layer={layer!r} of the sentence encoder must be 'middle', a number from 1 to {last} (the "
                f"layers of {self._path!r}), or null for the last"
            )
        if self._pooling == "cls":
            special = tokenizer.build_inputs_with_special_tokens([])
            if not special or special[0] != tokenizer.cls_token_id:
                raise ConfigurationError(
                    f'pooling="cls" needs an encoder whose input starts with a [CLS] token, and that of '
                    f'{self._path!r} does not: choose pooling="mean".'
                )

    def _layer_of(self, model: PreTrainedModel) -> Union[int, str]:
        last: int = model.config.num_hidden_layers
        return last if self._layer is None else max(1, last // 2) if self._layer == "middle" else self._layer

    def _encode_ids(self, ids: list[tuple[int, ...]], model: PreTrainedModel, padding: int) -> np.ndarray:
        """The vectors, `(num_sentences, dim)`, of subword ids that are sorted by length."""
        batches = list(_batches([len(sentence) for sentence in ids], self._tokens_per_batch))
        progress = Tqdm.tqdm(batches, desc="encoding sentences", disable=len(batches) < _MIN_BATCHES_SHOWN)
        with _evaluating(model), torch.inference_mode(), FastLinear():
            if self._states is None or self._states[0] is not model:
                layer = None if self._layer is None else int(self._layer_of(model))
                self._states = model, hidden_states_after(model, layer)
            encode = partial(self._encode_batch, self._states[1], model.device, padding)
            return np.concatenate([encode(ids[start:end]) for start, end in progress])

    def _encode_batch(
        self, states: HiddenStates, device: torch.device, padding: int, ids: list[tuple[int, ...]]
    ) -> np.ndarray:
        inputs = pad_sequence([torch.tensor(sentence) for sentence in ids], True, padding).to(device)
        lengths = torch.tensor([len(sentence) for sentence in ids], device=device).unsqueeze(1)
        mask = torch.arange(inputs.size(1), device=device) < lengths
        hidden = states(inputs, mask.long()).float()
        vectors = hidden[:, 0] if self._pooling == "cls" else (hidden * mask.unsqueeze(2)).sum(1) / lengths
        return torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()


def encoding_device(cuda_device: Optional[int]) -> torch.device:
    """
    # Parameters

    cuda_device : `int`, optional
        See [`TransformerSentenceEncoder`](#transformersentenceencoder).

    # Returns

    `torch.device`
        The CPU, if there is no such GPU, with a warning.
    """
    # In a forked process whose parent uses a GPU, CUDA is not initialized, and cannot be.
    if cuda_device is None and torch.cuda.is_initialized():
        # A model is where most of its process's memory is.
        cuda_device = max(range(torch.cuda.device_count()), key=torch.cuda.memory_allocated)
    elif cuda_device is not None and cuda_device >= torch.cuda.device_count():
        logger.warning("There is no GPU %d, so sentence vectors are computed on the CPU.", cuda_device)
        cuda_device = None
    return int_to_device(-1 if cuda_device is None else cuda_device)


def _batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[tuple[int, int]]:
    """Start and end of the batches of a list that is sorted by length."""
    start = 0
    for end, length in enumerate(lengths):
        if end > start and (end + 1 - start) * length > tokens_per_batch:
            yield start, end
            start = end
    yield start, len(lengths)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off; afterwards every module is in the mode it was in, as others may share the model."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What decides how words become ids. The last call's truncation and padding do not belong to it."""
    if not tokenizer.is_fast:
        return {
            "class": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab(),
            **tokenizer.init_kwargs,
        }
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in state.items() if key not in ("truncation", "padding")}
