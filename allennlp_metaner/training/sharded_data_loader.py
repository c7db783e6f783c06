"""Batches that do not depend on how many processes share them."""

import random
from collections.abc import Sequence
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import BatchSampler, DataLoader, DatasetReader, Instance, TensorDict
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.data.data_loaders.data_collator import DataCollator, DefaultDataCollator

from allennlp_metaner.nn.randomness import derived_seed
from allennlp_metaner.training.processes import rank_and_size


@DataLoader.register("sharded")
class ShardedDataLoader(MultiProcessDataLoader):
    """
    A `MultiProcessDataLoader` whose batches are shared out to the processes of distributed training. Every
    process reads and shuffles all sentences in the same order, and of every batch of that order takes those
    at its own number, that plus the number of processes, and so on. So two processes with a `batch_size` of 4
    see what one sees with 8, all have equally many batches, and no sentence is lost or comes twice.
    AllenNLP's own loader shares out sentences before it shuffles them.

    Random numbers of a sentence, such as those of `entity_masking`, are drawn from a seed that depends on its
    place in the order alone, whichever process batches it.

    Registered as a `DataLoader` with name "sharded".

    # Parameters

    reader : `DatasetReader`
    data_path : `Any`
    batch_size : `int`, optional (default = `None`)
        Of each process.
    batch_sampler : `BatchSampler`, optional (default = `None`)
        With several processes, one with a `batch_size`, which is also that of each process.

    The others are those of `MultiProcessDataLoader`.

    # Raises

    `ConfigurationError`, with several processes, if the batch sampler has no `batch_size`, for worker
    processes (`num_workers`), whose sentences come in no fixed order, if there are fewer sentences than
    processes, and if their number is not known (`max_instances_in_memory` without `drop_last`).
    """

    def __init__(
        self,
        reader: DatasetReader,
        data_path: Any,
        *,
        batch_size: Optional[int] = None,
        batch_sampler: Optional[BatchSampler] = None,
        collate_fn: Optional[DataCollator] = None,
        **kwargs: Any,
    ) -> None:
        share = _Share(collate_fn or DefaultDataCollator(), *rank_and_size())
        if share.num_processes > 1:
            if kwargs.get("num_workers"):
                raise ConfigurationError(
                    f"data_loader.num_workers={kwargs['num_workers']} with 'distributed': workers deliver "
                    "sentences in no fixed order, so processes could not share them out. Set it to 0"
                )
            # All processes read everything.
            reader._set_distributed_info(None)
        self._path = data_path
        super().__init__(
            reader,
            data_path,
            # AllenNLP's own annotations leave out that these may be missing.
            batch_size=batch_size,  # type: ignore[arg-type]
            batch_sampler=batch_sampler,  # type: ignore[arg-type]
            collate_fn=share,  # type: ignore[arg-type]
            **kwargs,
        )
        if share.num_processes > 1:
            self._enlarge_batches(batch_sampler or self, share.num_processes)

    def _enlarge_batches(self, holder: Any, num_processes: int) -> None:
        """From those of one process to those of all, so that each has a share of the last one too."""
        size: Optional[int] = getattr(holder, "batch_size", None)
        # AllenNLP's sampler of batches of a number of tokens has a size of -1.
        if size is None or size < 1:
            raise ConfigurationError(
                f"data_loader.batch_sampler is a {type(holder).__name__}, which has no batch_size "
                "that processes ('distributed') could share out: take 'bucket', or data_loader.batch_size"
            )
        size *= num_processes
        if not getattr(holder, "drop_last", False):
            size = self._without_tiny_last_batch(size, num_processes)
        holder.batch_size = size

    def _without_tiny_last_batch(self, size: int, num_processes: int) -> int:
        if self._instances is None:
            raise ConfigurationError(
                "data_loader.max_instances_in_memory with 'distributed': the number of sentences is not "
                "known, and the last batch may be too small for all processes. Set data_loader.drop_last, or "
                "read all"
            )
        if len(self._instances) < num_processes:
            raise ConfigurationError(
                f"{self._path} has {len(self._instances)} sentences, fewer than the {num_processes} "
                "processes of 'distributed': give more sentences, or fewer devices"
            )
        while 0 < len(self._instances) % size < num_processes:
            size += 1
        return size


class _Share:
    """A data collator that takes one process's share of a batch of all, each sentence with its own seed."""

    def __init__(self, collate: DataCollator, rank: int, num_processes: int) -> None:
        self._collate = collate
        self._rank = rank
        self.num_processes = num_processes

    def __call__(self, instances: Sequence[Instance]) -> TensorDict:
        seed = random.getrandbits(32)
        state = random.getstate()
        try:
            seeded: list[Instance] = [
                _Seeded(one, derived_seed(seed, index)) for index, one in enumerate(instances)
            ]
            return self._collate(seeded[self._rank :: self.num_processes])
        finally:
            # What is shuffled next must not depend on the share.
            random.setstate(state)


class _Seeded(Instance):
    def __init__(self, instance: Instance, seed: int) -> None:
        super().__init__(instance.fields)
        self.indexed = instance.indexed
        self._seed = seed

    def as_tensor_dict(self, padding_lengths: Optional[dict[str, dict[str, int]]] = None) -> Any:
        random.seed(self._seed)
        return super().as_tensor_dict(padding_lengths)  # type: ignore[arg-type]
