"""What the commands load: files with clear errors, and the reader that prediction retrieves with."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.data import DatasetReader
from allennlp.models import Archive, load_archive
from allennlp.models.archival import CONFIG_NAME, extracted_archive

from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader


def is_archive(path: Path) -> bool:
    """Whether `path` is an archive, or a serialization directory, which AllenNLP takes for one."""
    return (path / CONFIG_NAME).is_file() if path.is_dir() else tarfile.is_tarfile(path)


def local_path(path: str) -> Path:
    """
    The local copy of a path or an address.

    # Raises

    `ConfigurationError`, if there is none.
    """
    try:
        return Path(cached_path(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}). Check the path") from error


def check_archive(archive_file: str) -> None:
    """
    # Raises

    `ConfigurationError`, if `archive_file` is neither an archive nor a serialization directory.
    """
    if not is_archive(local_path(archive_file)):
        raise ConfigurationError(
            f"{archive_file} is no archive: give a model.tar.gz, or a serialization directory"
        )


def load_checked(
    archive_file: str, cuda_device: int = -1, overrides: str = "", weights_file: Optional[str] = None
) -> Archive:
    """
    AllenNLP's `load_archive`, with a clear error for what is none ([`check_archive`](#check_archive)).
    """
    check_archive(archive_file)
    return load_archive(archive_file, cuda_device, overrides, weights_file)  # type: ignore[arg-type]


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
    with _config_directory(local_path(archive_or_config)) as (config_path, serialization_dir):
        config = Params.from_file(str(config_path), overrides)
        params = config.pop("validation_dataset_reader", None) or config.pop("dataset_reader")
        if num_neighbors is not None and "retriever" in params:
            params["retriever"]["num_neighbors"] = num_neighbors
        reader = DatasetReader.from_params(params, serialization_dir=serialization_dir)
    return task_reader(reader, archive_or_config)


@contextmanager
def _config_directory(path: Path) -> Iterator[tuple[Path, Optional[str]]]:
    """The config file, and the serialization directory that belongs to it, if any."""
    if path.is_dir():
        if not is_archive(path):
            raise ConfigurationError(f"{path} has no {CONFIG_NAME}: give an archive, a run or a config")
        yield path / CONFIG_NAME, str(path)
    elif is_archive(path):
        with extracted_archive(path) as directory:
            yield Path(directory) / CONFIG_NAME, directory
    else:
        yield path, None
