"""Shards by Ray Data: one task reads, and actors that load a model once write. Ray restarts what dies."""

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.sharding.shard_folder import ShardFolder
from allennlp_metaner.sharding.shard_writing import Process

# What is read ahead of the workers waits in Ray's object store. This bounds it, whatever the store's size.
BYTES_READ_AHEAD = 256 * 2**20
# By default, Ray tells its makers about every start, and runs workers with the lowest priority there is.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def write_by_workers(
    folder: ShardFolder,
    read: Callable[[], Iterable[Any]],
    load: Callable[[], Process],
    num_workers: int,
    num_gpus: float = 0,
) -> Iterator[int]:
    """
    See [`write_shards`](./shard_writing.md#write_shards). Each worker computes with one thread on the CPU,
    unless the environment variable `OMP_NUM_THREADS` says otherwise.
    """
    ray = _ray()
    with _session(ray, num_workers), _settings(ray):
        # Done is what is done now: a task that is killed and begun again must give what it gave.
        shards = ray.data.from_items([{"shards": "all"}]).map_batches(
            _read_shards, fn_args=(read, folder.done()), batch_size=None, batch_format="pyarrow", num_cpus=0
        )
        written = shards.map_batches(
            _ShardWriter,
            fn_constructor_args=(folder, load),
            compute=ray.data.ActorPoolStrategy(size=num_workers),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            **({"num_gpus": num_gpus} if num_gpus else {}),
        )
        for row in written.iter_rows():
            if row["error"]:
                raise ConfigurationError(row["error"])
            yield row["shard"]


def _read_shards(_: Any, read: Callable[[], Iterable[Any]], done: frozenset[int]) -> Iterator[Any]:
    """A table of one row for each shard that is not done."""
    import pyarrow

    for shard, items in enumerate(read()):
        if shard not in done:
            yield pyarrow.table({"shard": [shard], "items": [pickle.dumps(items)]})


class _ShardWriter:
    """An actor, called with a table of one row: a shard."""

    def __init__(self, folder: ShardFolder, load: Callable[[], Process]) -> None:
        self._folder, self._load = folder, load
        self._process: Optional[Process] = None

    def __call__(self, table: Any) -> Any:
        import pyarrow

        (shard,), (items,) = (table[name].to_pylist() for name in ("shard", "items"))
        error = ""
        try:
            # It is there if a worker was killed after it had written it.
            if not self._folder.file(shard).exists():
                self._process = self._process or self._load()
                self._folder.write(shard, self._process(pickle.loads(items)))
        except ConfigurationError as raised:
            # As data, since Ray would wrap it in errors of its own, or try again.
            error = str(raised.message) or "unknown"
        return pyarrow.table({"shard": [shard], "error": [error]})


def _ray() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigurationError(
            f"workers need the package ray[data] ({error}): install allennlp-metaner[ray], or leave out the "
            "number of workers"
        ) from error
    return ray


@contextmanager
def _session(ray: Any, num_workers: int) -> Iterator[None]:
    """Ray, as the caller has started it, or else started and ended here."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"num_cpus": num_workers, "include_dashboard": False}
    if address:
        # Machines of a cluster have not inherited the environment of this process.
        ours = {name: value for name, value in os.environ.items() if name.startswith("METANER_")}
        settings = {"runtime_env": {"env_vars": ours}}
    ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _settings(ray: Any) -> Iterator[None]:
    """Ray Data without its own messages, with blocks of one row: a shard is what workers share out."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=BYTES_READ_AHEAD
    )
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)
