"""What the commands load: the reader that prediction retrieves with, without the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader
from allennlp.models.archival import CONFIG_NAME

from allennlp_metaner.archives import is_archive, local_path, unpacked
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader
from allennlp_metaner.untrusted_config import untrusted


def merged(*overrides: str) -> str:
    """
    One Jsonnet structure of overrides from several, any of which may be empty: later ones win.
    """
    # The line break ends a comment.
    return " + ".join(f"({part}\n)" for part in overrides if part.strip())


def task_reader(reader: DatasetReader, source: str) -> PseudoTaskReader:
    """
    `reader`, if it can retrieve.

    # Parameters

    reader : `DatasetReader`
    source : `str`
        The archive or config that it is from, for the message.

    # Raises

    `ConfigurationError`, if it is not of type "pseudo_tasks".
    """
    if not isinstance(reader, PseudoTaskReader):
        raise ConfigurationError(
            f"{source}: sentences to label are read by {type(reader).__name__}, which retrieves nothing. "
            "Make the config's validation_dataset_reader one of type 'pseudo_tasks', with a pool_path"
        )
    return reader


def load_task_reader(
    archive_or_config: str, overrides: str = "", num_neighbors: Optional[int] = None
) -> PseudoTaskReader:
    """
    The reader that sentences to label go through, without the model.

    # Parameters

    archive_or_config : `str`
        An archive, a serialization directory, or the config of an experiment, which need not have been run.
    overrides : `str`, optional (default = `""`)
        Jsonnet that overrides settings of the config.
    num_neighbors : `int`, optional (default = `None`)
        Overrides the retriever's.

    # Raises

    `ConfigurationError`, if there is no such file, or its reader cannot retrieve.
    """
    with _config_directory(archive_or_config, overrides) as (config_path, serialization_dir):
        config = Params.from_file(str(config_path), overrides)
        params = config.pop("validation_dataset_reader", None) or config.pop("dataset_reader")
        if num_neighbors is not None and "retriever" in params:
            params["retriever"]["num_neighbors"] = num_neighbors
        reader = DatasetReader.from_params(params, serialization_dir=serialization_dir)
    return task_reader(reader, archive_or_config)


@contextmanager
def _config_directory(archive_or_config: str, overrides: str) -> Iterator[tuple[Path, Optional[str]]]:
    """The config file, and the serialization directory that belongs to it, if any."""
    path = local_path(archive_or_config)
    if path.is_file() and not is_archive(path):
        yield path, None
        return
    with (
        unpacked(archive_or_config) as directory,
        untrusted(directory / CONFIG_NAME, archive_or_config, overrides),
    ):
        yield directory / CONFIG_NAME, str(directory)
