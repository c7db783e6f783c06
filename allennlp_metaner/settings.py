"""
Where the shipped configs find things, in one place.

Jsonnet reads environment variables (`std.extVar`), but has no default for one that is not set. Importing the
package sets those that are missing.
"""

import logging
import os
import tempfile
from typing import Optional

import torch
from allennlp.common import file_utils
from allennlp.common.checks import ConfigurationError

logger = logging.getLogger(__name__)

DEFAULTS = {
    # A model on the hub, or a directory.
    "METANER_ENCODER": "bert-base-multilingual-cased",
    # The folder of the corpora: conll2003/eng.train and so on, see training_configs/lib/corpora.libsonnet.
    "METANER_DATA": "data",
    # Training that starts from a finished run: its folder, and which of its weights ("model_state_e3_b0.th"
    # are those after three epochs).
    "METANER_START": "runs/meta_en",
    "METANER_START_WEIGHTS": "best.th",
    # Grids of second stages: the finished base models, "{seed}" for the seed. If empty, they are trained.
    "METANER_BASE": "",
    # Low resource: the corpus (a name in corpora.libsonnet).
    "METANER_TARGET": "conll2002_es",
    # A student: the folder that `allennlp metaner-pseudo-label` wrote.
    "METANER_PSEUDO_LABELS": "runs/pseudo_labels",
    # The number of meta updates, and of those between two validations, unless there are fewer in all; of
    # epochs of a base model. Where empty, each config has its own numbers.
    "METANER_UPDATES": "",
    "METANER_UPDATES_PER_VALIDATION": "",
    "METANER_EPOCHS": "",
    # The tasks (or, for the base model, sentences) of an update, and K.
    "METANER_BATCH_SIZE": "32",
    "METANER_NEIGHBORS": "2",
    # What a training runs on: "0,1" are two GPUs, "-1,-1" two processes on CPUs. Empty: a GPU, if any.
    "METANER_DEVICES": "",
    "METANER_SEED": "13370",
}
"""Environment variables that the shipped configs read, and their defaults."""

MATMUL_PRECISION = "METANER_MATMUL_PRECISION"
"""
The environment variable that sets PyTorch's precision of float32 matrix products: "highest" (PyTorch's
default), "high" (TF32 on GPUs) or "medium" (bfloat16 factors, on GPUs and on CPUs with AMX, where
plain training is faster and meta-training slower: docs/performance.md). Values and sums stay float32.
"""

MATMUL_PRECISIONS = ("highest", "high", "medium")


def set_defaults() -> None:
    """Set the environment variables of [`DEFAULTS`](#defaults) that are not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


_cache: Optional["tempfile.TemporaryDirectory[str]"] = None


def set_cache() -> None:
    """
    Give AllenNLP a temporary cache folder if it has none that can be written, as in a read-only home: it
    makes this folder before it opens any file, local ones too. The environment variable `ALLENNLP_CACHE_ROOT`
    names a lasting one.
    """
    global _cache
    try:
        os.makedirs(file_utils.CACHE_DIRECTORY, exist_ok=True)
        with tempfile.TemporaryFile(dir=file_utils.CACHE_DIRECTORY):
            pass
    except OSError as error:
        _cache = tempfile.TemporaryDirectory(prefix="allennlp-cache-")
        logger.warning(
            "AllenNLP's cache %s cannot be written (%s). What is downloaded is lost at the end of this "
            "process; the environment variable ALLENNLP_CACHE_ROOT names another folder.",
            file_utils.CACHE_DIRECTORY,
            error,
        )
        file_utils.CACHE_DIRECTORY = _cache.name


def set_matmul_precision() -> None:
    """
    Set the precision of matrix products that [`MATMUL_PRECISION`](#matmul_precision) asks for, if it is set.

    # Raises

    `ConfigurationError`, if it is none of `MATMUL_PRECISIONS`.
    """
    precision = os.environ.get(MATMUL_PRECISION)
    if precision is None:
        return
    if precision not in MATMUL_PRECISIONS:
        raise ConfigurationError(
            f"the environment variable {MATMUL_PRECISION}={precision!r} must be one of "
            f"{', '.join(MATMUL_PRECISIONS)}, or not set"
        )
    torch.set_float32_matmul_precision(precision)
