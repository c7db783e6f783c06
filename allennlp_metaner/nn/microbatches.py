"""Sharing out tasks of different sizes to passes of like work."""

from collections.abc import Sequence

from allennlp_metaner.nn.collate import Batch, Joined

FIXED_COST = 50
"""The time that a task takes however short its sentences are, in subwords that take as long."""


def microbatches_of(
    batches: Sequence[Batch], others: Sequence[Batch], size: int, multiple: int = 1
) -> list[list[int]]:
    """
    Tasks of like length, the longest first, in microbatches of like work. If there are several, their number
    is a multiple of the number of cores, as long as that is no more than there are tasks.

    # Parameters

    batches : `Sequence[Batch]`
        What goes through the model together, one a task.
    others : `Sequence[Batch]`
        What else makes work, one a task.
    size : `int`
        How many subwords of `batches` a microbatch has at most, unless it is a single task.
    multiple : `int`, optional (default = `1`)
        The number of cores.

    # Returns

    `list[list[int]]`
        The indices of the tasks of each microbatch.
    """
    joined, joined_others = Joined.of(batches), Joined.of(others)
    sizes, lengths = joined.num_subwords(), list(map(max, joined.longest, joined_others.longest))
    order = sorted(range(len(batches)), key=lambda task: (-lengths[task], task))
    work = [own + other + FIXED_COST for own, other in zip(sizes, joined_others.num_subwords(), strict=True)]
    number = -(-sum(sizes) // size)
    while True:
        number = min(number + (-number % multiple if number > 1 else 0), len(order))
        found = _split(order, work, number)
        if all(len(tasks) == 1 or sum(sizes[task] for task in tasks) <= size for tasks in found):
            return found
        number += 1


def _split(order: list[int], work: list[int], number: int) -> list[list[int]]:
    """`order` in so many parts of like work, none of them empty."""
    parts: list[list[int]] = []
    done = 0
    for position, task in enumerate(order):
        # In the middle of its work, a task is in the part that is due.
        due = (done + work[task] / 2) * number > len(parts) * sum(work)
        missing = number - len(parts)
        if missing and (due or len(order) - position <= missing):
            parts.append([])
        parts[-1].append(task)
        done += work[task]
    return parts
