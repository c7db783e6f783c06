"""Where a pretrained encoder is loaded from: its name, or the copy that travels inside an archive."""

import hashlib
import os
import re
from pathlib import Path

from allennlp.common import cached_transformers
from allennlp.common.checks import ConfigurationError
from transformers import PretrainedConfig

from allennlp_metaner.atomic import whole_directory

# These number their positions from behind the padding index, so part of the position table is never used.
_OFFSET_MODEL_TYPES = ("roberta", "xlm-roberta", "camembert")

ENCODER_DIRECTORY = "encoder"
"""Folder of the serialization directory (and of the archive) that holds pretrained encoders."""


def archived_name(model_name: str) -> str:
    """The folder name, inside [`ENCODER_DIRECTORY`](#encoder_directory), of the encoder `model_name`."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(model_name).name).strip("-")
    return f"{slug}-{hashlib.sha256(model_name.encode()).hexdigest()[:8]}"


def pretrained_path(model_name: str, serialization_dir: str | os.PathLike[str] | None = None) -> str:
    """
    Where to load the pretrained encoder `model_name` from.

    An archive must work on a machine that has neither the encoder's directory nor a model hub. So the first
    component that asks during training copies tokenizer and pretrained weights to
    `serialization_dir/encoder/NAME`; `include_in_archive: ["encoder", ...]` takes that folder along, and a
    loaded archive finds it there.

    # Parameters

    model_name : `str`
        A directory, or a name on the model hub.
    serialization_dir : `str`, optional (default = `None`)
        AllenNLP's serialization directory. If `None`, nothing is copied.

    # Returns

    `str`
        A directory or a name that `transformers` can load.

    # Raises

    `ConfigurationError`, if the encoder is neither archived nor loadable.
    """
    if serialization_dir is None:
        return model_name
    target = Path(serialization_dir) / ENCODER_DIRECTORY / archived_name(model_name)
    if not (target / "config.json").exists():
        _copy_pretrained(model_name, target)
    return str(target)


def is_archived(path: str, serialization_dir: str | os.PathLike[str] | None) -> bool:
    """Whether `path` lies in `serialization_dir`, which may be deleted as soon as an archive is loaded."""
    return serialization_dir is not None and Path(serialization_dir) in Path(path).parents


def max_positions(config: PretrainedConfig) -> int | None:
    """
    The number of subwords, special tokens included, that an encoder has positions for; `None` if any number.

    # Parameters

    config : `PretrainedConfig`
        Of the encoder.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and config.model_type in _OFFSET_MODEL_TYPES:
        return limit - config.pad_token_id - 1
    return limit


def _copy_pretrained(model_name: str, target: Path) -> None:
    try:
        tokenizer = cached_transformers.get_tokenizer(model_name)
        model = cached_transformers.get(model_name, make_copy=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the encoder model_name={model_name!r} could not be loaded: {error}. Give the name of a model "
            "on the hub, or a directory with config.json, weights and tokenizer files; the configs that come "
            "with this package take it from the environment variable METANER_ENCODER."
        ) from error
    with whole_directory(target) as folder:
        tokenizer.save_pretrained(str(folder))
        model.save_pretrained(str(folder))
