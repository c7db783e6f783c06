"""The folders that `allennlp metaner-export` writes, as taggers, with the tags of the archive's model."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Token, Vocabulary
from torch.nn.utils.rnn import pad_sequence

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.data.windows import windows
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.models.decoding import Decoder
from allennlp_metaner.nn.linear import fast_linear
from allennlp_metaner.tagging.backends import Tagged

if TYPE_CHECKING:
    from os import PathLike

RUNTIMES = ("transformers", "onnxruntime")
SETTINGS_KEY = "metaner"
"""The key of config.json with the [`ExportSettings`](#exportsettings)."""

ONNX_FILE = "model.onnx"
SUBWORDS_AT_ONCE = {"cpu": 512, "core": 256, "gpu": 8192}
"""
At most so many subwords go through the model together, padding included, unless one window has more. The
cores of a CPU, and a core with a batch of its own ("onnxruntime"), are busy with that many, and more would
only be padded more.
"""

Inputs = tuple[torch.Tensor, torch.Tensor]
"""Subword ids of a batch and their mask, both of shape `(num_rows, num_subwords)`."""

Run = Callable[[Sequence[Inputs]], list[torch.Tensor]]
"""Batches to logits, for each batch `(num_rows, num_subwords, num_labels)`."""


class ExportSettings(TypedDict):
    """What a tagger does around its model, as in the archive: its config and all its labels, by index."""

    max_length: int
    overlap: int
    labels: list[str]
    constrain_decoding: bool
    ignored_types: list[str]


class ExportedTagger:
    """
    Labels words with an exported model. It cuts words into subwords and long sentences into windows as the
    archive's tagger does, so each word gets the tag that the archive's predictor gives without adaptation.

        tagger = ExportedTagger("exported")
        [tagged] = tagger.tag([["Anna", "visited", "Paris", "."]])
        print(tagged.tags)

    It is a [`Backend`](./backends.md#backend): `NameTagger.load("exported")` labels raw text with it. Several
    threads may call it at the same time.

    # Parameters

    folder : `str`
        That `allennlp metaner-export` wrote.
    runtime : `str`, optional (default = `"transformers"`)
        "transformers", or "onnxruntime" for a folder that was exported with `--onnx`. The latter holds the
        model twice where PyTorch has several threads: for a few sentences, and for many.
    cuda_device : `int`, optional (default = `-1`)
        The GPU to use; -1 means the CPU, where "onnxruntime" always runs.

    # Raises

    `ConfigurationError`, if the folder is none, has no ONNX file but should, or an argument is out of range.
    """

    def __init__(
        self, folder: "Union[str, PathLike[str]]", runtime: str = "transformers", cuda_device: int = -1
    ) -> None:
        if runtime not in RUNTIMES:
            raise ConfigurationError(f"runtime={runtime!r} must be one of {', '.join(RUNTIMES)}")
        path = Path(folder)
        config = read_config(path)
        if config is None:
            raise ConfigurationError(
                f"{folder} is no exported tagger: give a folder that `allennlp metaner-export` wrote"
            )
        self._settings: ExportSettings = config[SETTINGS_KEY]
        labels = dict(enumerate(self._settings["labels"]))
        self._decoder = Decoder(labels, self._settings["constrain_decoding"], self._settings["ignored_types"])
        self._pad_id: int = config["pad_token_id"]
        self._indexer = WordTransformerIndexer(str(path))
        if runtime == "onnxruntime":
            self._run = _onnx_model(path, cuda_device)
            self._subwords_at_once = SUBWORDS_AT_ONCE["core"]
        else:
            self._run = _transformers_model(path, cuda_device)
            self._subwords_at_once = SUBWORDS_AT_ONCE["cpu" if cuda_device < 0 else "gpu"]

    @exclusive()
    def tag(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        """
        # Parameters

        sentences : `Sequence[Sequence[str]]`
            Each as its words, of which there is at least one.

        # Returns

        `list[Tagged]`
            For each sentence, the tags and the confidence of each entity.
        """
        rows: list[list[int]] = []
        places = [self._add_windows(words, rows) for words in sentences]
        logits = self._logits(rows)
        return [
            self._tagged(torch.stack([logits[row][column] for row, column in of_words]))
            for of_words in places
        ]

    def _add_windows(self, words: Sequence[str], rows: list[list[int]]) -> list[tuple[int, int]]:
        """Add the windows of a sentence to `rows`, and return the row and column of each word in them."""
        indexed = self._indexer.tokens_to_indices([Token(word) for word in words], Vocabulary())
        ids: list[int] = indexed["token_ids"]
        start, end = indexed["offsets"][0][0], indexed["offsets"][-1][1] + 1
        before, content, after = ids[:start], ids[start:end], ids[end:]
        size = self._settings["max_length"] - len(before) - len(after)
        places: list[tuple[int, int]] = []
        first_subwords = [first for first, _ in indexed["offsets"]]
        for window in windows(len(content), size, self._settings["overlap"]):
            owned = range(start + window.keep, start + window.end)
            places += [(len(rows), first - window.start) for first in first_subwords if first in owned]
            rows.append([*before, *content[window.start : window.end], *after])
        return places

    def _logits(self, rows: Sequence[Sequence[int]]) -> dict[int, torch.Tensor]:
        """The logits of each row, shape `(num_subwords, num_labels)`; rows of like length run together."""
        batches = batches_by_length([len(row) for row in rows], self._subwords_at_once)
        found = self._run([self._inputs([rows[row] for row in batch]) for batch in batches])
        return {
            row: of_row
            for batch, of_batch in zip(batches, found, strict=True)
            for row, of_row in zip(batch, of_batch, strict=True)
        }

    def _inputs(self, rows: Sequence[Sequence[int]]) -> Inputs:
        ids = pad_sequence([torch.tensor(row) for row in rows], True, self._pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()

    def _tagged(self, logits: torch.Tensor) -> Tagged:
        mask = torch.ones(1, len(logits), dtype=torch.bool)
        [tags] = self._decoder(logits.unsqueeze(0), mask)  # type: ignore[arg-type]
        rows = logits.softmax(dim=-1).tolist()
        probabilities = [row[self._decoder.index(tag)] for tag, row in zip(tags, rows, strict=True)]
        return Tagged(tags, [min(probabilities[first : last + 1]) for _, first, last in spans(tags)])


def batches_by_length(lengths: Sequence[int], padded_length: int) -> list[list[int]]:
    """
    The indices of rows in batches, the shortest rows first. A batch has one row, or at most `padded_length`
    subwords when all its rows are padded to the longest, which is its last.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= padded_length:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def read_config(folder: Path) -> Optional[dict[str, Any]]:
    """The config of an exported tagger, or `None` if `folder` is none."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and SETTINGS_KEY in config else None


def _transformers_model(folder: Path, cuda_device: int) -> Run:
    from transformers import AutoModelForTokenClassification

    device = torch.device("cpu" if cuda_device < 0 else f"cuda:{cuda_device}")
    model = AutoModelForTokenClassification.from_pretrained(str(folder)).eval().to(device)

    @torch.no_grad()
    def run(batches: Sequence[Inputs]) -> list[torch.Tensor]:
        with fast_linear(device):
            return [model(ids.to(device), mask.to(device)).logits.cpu() for ids, mask in batches]

    return run


def _onnx_model(folder: Path, cuda_device: int) -> Run:
    if cuda_device >= 0:
        raise ConfigurationError(f"cuda_device={cuda_device} is for runtime='transformers' only: give -1")
    if not (folder / ONNX_FILE).is_file():
        raise ConfigurationError(f"{folder} has no {ONNX_FILE}: export the archive anew, with --onnx")
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            "runtime='onnxruntime' needs the package onnxruntime: install allennlp-metaner[onnx]"
        ) from error

    def session(num_threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        return onnxruntime.InferenceSession(
            str(folder / ONNX_FILE), options, providers=["CPUExecutionProvider"]
        )

    # A batch a core is faster than all cores at one batch, and takes no threads that wait for each other.
    num_threads = torch.get_num_threads()
    of_a_core = session(1)
    of_all_cores = session(num_threads) if num_threads > 1 else of_a_core

    def run(batches: Sequence[Inputs]) -> list[torch.Tensor]:
        is_enough = len(batches) >= num_threads
        model = of_a_core if is_enough else of_all_cores

        def logits(inputs: Inputs) -> torch.Tensor:
            ids, mask = (tensor.numpy() for tensor in inputs)
            return torch.from_numpy(model.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0])

        with ThreadPoolExecutor(num_threads if is_enough else 1) as workers:
            return list(workers.map(logits, batches))

    return run
