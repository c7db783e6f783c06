"""How many sentences a training shows to the model."""

import json
from functools import lru_cache
from typing import Any, Optional

from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader

from allennlp_metaner.experiments.jobs import Training

_TOLERANCE = 0.01


def sentences_per_epoch(config: dict[str, Any]) -> Optional[int]:
    """
    The sentences that an epoch shows. A task shows its query and its support set; where the support set has
    no influence ("query_only"), the query alone. Sentences count as often as they are shown.

    # Parameters

    config : `dict[str, Any]`
        That of a training.

    # Returns

    `Optional[int]`
        `None`, if the config does not tell, and its training data cannot be read.
    """
    loader, reader = config.get("data_loader", {}), config.get("dataset_reader", {})
    batch_size = loader.get("batch_size") or loader.get("batch_sampler", {}).get("batch_size")
    batches = loader.get("batches_per_epoch")
    if batches and batch_size:
        instances: Optional[int] = batches * batch_size * _num_processes(config.get("distributed") or {})
    else:
        instances = _num_instances(config)
    if instances is None:
        return None
    tasks = reader.get("type") == "pseudo_tasks" and config["trainer"].get("type") == "meta"
    if tasks and config["trainer"].get("meta_gradient", {}).get("type") != "query_only":
        return instances * (1 + reader["retriever"]["num_neighbors"])
    return instances


def sentences_shown(training: Training, epochs: Optional[int] = None) -> Optional[int]:
    """
    The sentences that a training shows, with those of the training that it starts from.

    # Parameters

    training : `Training`
    epochs : `int`, optional (default = `None`)
        After so many epochs. If `None`, after all that the config asks for.

    # Returns

    `Optional[int]`
        `None`, if it is not known.
    """
    before = sentences_shown(training.needs) if training.needs else 0
    of_epoch = sentences_per_epoch(training.config)
    if before is None or of_epoch is None:
        return None
    return before + of_epoch * (training.config["trainer"]["num_epochs"] if epochs is None else epochs)


def equal_data(first: Optional[int], second: Optional[int]) -> bool:
    """Whether two numbers of sentences are known, and the same but for incomplete batches."""
    return first is not None and second is not None and abs(first - second) <= _TOLERANCE * max(first, second)


def _num_processes(distributed: dict[str, Any]) -> int:
    """Each has batches of its own."""
    return len(distributed.get("cuda_devices", [None])) * distributed.get("num_nodes", 1)


def _num_instances(config: dict[str, Any]) -> Optional[int]:
    reader, path = config.get("dataset_reader"), config.get("train_data_path")
    if not reader or not path:
        return None
    # Of a reader around another one, all instances are the other one's.
    reader = dict(reader.get("base_reader", reader))
    # They need the encoder's tokenizer, and do not matter here.
    reader.pop("token_indexers", None)
    return _count(json.dumps(reader), path)


@lru_cache
def _count(reader: str, path: str) -> Optional[int]:
    try:
        return sum(1 for _ in DatasetReader.from_params(Params(json.loads(reader))).read(path))
    except (ConfigurationError, OSError):
        return None
