"""Tasks of like length in chunks, each of which goes through the model in one pass."""

from collections.abc import Sequence

from allennlp_metaner.meta.passes import Batch
from allennlp_metaner.nn.joined import longest, num_subwords

WORK_OF_A_TASK = 50
"""Fixed cost of a task, in subword equivalents: the time that it takes however short its sentences are."""


def chunks_of(batches: Sequence[Batch], others: Sequence[Batch], chunk_size: int) -> list[list[int]]:
    """
    Tasks of like length, the longest first, in chunks of like work. If there are several, their number is
    even, for two CPU cores, as long as that is no more than there are tasks. It does not depend on the number
    of workers, since random numbers depend on it.

    # Parameters

    batches : `Sequence[Batch]`
        What goes through the model together, one a task.
    others : `Sequence[Batch]`
        What else makes work, one a task.
    chunk_size : `int`
        How many subwords of `batches` a chunk has at most, unless it is a single task.

    # Returns

    `list[list[int]]`
        The numbers of the tasks of each chunk.
    """
    sizes = list(map(num_subwords, batches))
    lengths = [max(longest(b), longest(o)) for b, o in zip(batches, others, strict=True)]
    order = sorted(range(len(batches)), key=lambda task: (-lengths[task], task))
    work = [size + num_subwords(other) + WORK_OF_A_TASK for size, other in zip(sizes, others, strict=True)]
    num_chunks = -(-sum(sizes) // chunk_size)
    while True:
        num_chunks = min(num_chunks + (num_chunks % 2 if num_chunks > 1 else 0), len(order))
        chunks = _split(order, work, num_chunks)
        if all(len(c) == 1 or sum(sizes[task] for task in c) <= chunk_size for c in chunks):
            return chunks
        num_chunks += 1


def _split(order: list[int], work: list[int], num_chunks: int) -> list[list[int]]:
    """`order` in so many parts of like work, none of them empty."""
    chunks: list[list[int]] = []
    done = 0
    for position, task in enumerate(order):
        # In the middle of its work, a task is in the chunk that is due.
        due = (done + work[task] / 2) * num_chunks > len(chunks) * sum(work)
        missing = num_chunks - len(chunks)
        if missing and (due or len(order) - position <= missing):
            chunks.append([])
        chunks[-1].append(task)
        done += work[task]
    return chunks
