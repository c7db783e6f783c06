"""Shards are written by this process, or by workers of Ray. The files are the same."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.sharding.shard_folder import ShardFolder

Process = Callable[[Any], bytes]
"""What makes the content of a shard's file of the shard's items."""


def write_shards(
    folder: ShardFolder,
    read: Callable[[], Iterable[Any]],
    load: Callable[[], Process],
    num_workers: Optional[int] = None,
    num_gpus: float = 0,
) -> Iterator[int]:
    """
    Write all shards that are not there yet. However often this is interrupted and called again, the files
    are those of an undisturbed call, if `read` and the loaded function give the same for the same.

    # Parameters

    folder : `ShardFolder`
    read : `Callable[[], Iterable[Any]]`
        Gives the items of each shard, in order. They are read as they are needed. It is called once, or again
        by a worker if the one that read was killed.
    load : `Callable[[], Callable[[Any], bytes]]`
        Called once by each worker, to load a model: gives the function that is called with the items of one
        shard after the other, and returns the content of its file.
    num_workers : `int`, optional (default = `None`)
        `None`: everything happens in this process. Otherwise so many workers of Ray, for which `read` and
        `load` are pickled: on this machine, or on the cluster that the environment variable `RAY_ADDRESS`
        names, whose machines need to see the folder under the same path. A worker that is killed is replaced,
        and its shard begun again.
    num_gpus : `float`, optional (default = `0`)
        The GPUs that each worker of Ray has for itself, or its share of one.

    # Returns

    `Iterator[int]`
        The number of each shard that was written, as soon as it is there.

    # Raises

    `ConfigurationError`, if `num_workers` is not positive, Ray is not installed, or a worker raises one.
    """
    if num_workers is None:
        return _write_here(folder, read, load)
    if num_workers < 1:
        raise ConfigurationError(
            f"num_workers={num_workers} must be positive, or left out to work in this process"
        )
    from allennlp_metaner.sharding.ray_workers import write_by_workers

    return write_by_workers(folder, read, load, num_workers, num_gpus)


def _write_here(
    folder: ShardFolder, read: Callable[[], Iterable[Any]], load: Callable[[], Process]
) -> Iterator[int]:
    process: Optional[Process] = None
    done = folder.done()
    for shard, items in enumerate(read()):
        if shard not in done:
            process = process or load()
            folder.write(shard, process(items))
            yield shard
