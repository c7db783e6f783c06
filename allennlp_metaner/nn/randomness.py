"""Random numbers that belong to a task: the same whatever the tasks are that share a pass with it."""

import hashlib
import math
from collections.abc import Sequence

import torch

from allennlp_metaner.nn.task_rows import NotSeparableError, RowSlices, TaskRows

BITS = 16
"""Random bits an element on the CPU, where PyTorch would draw 64. Probabilities become multiples of 2^-16."""


def derived_seed(*parts: int) -> int:
    """A random seed that depends on all `parts` and nothing else, so that any step can be repeated alone."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def kept_elements(
    shape: Sequence[int], p: float, device: torch.device, generator: torch.Generator | None
) -> torch.Tensor:
    """
    Which elements dropout keeps.

    # Parameters

    shape : `Sequence[int]`
    p : `float`
        The probability that an element is not kept.
    device : `torch.device`
    generator : `torch.Generator`, optional
        On `device`; `None` means PyTorch's global one.

    # Returns

    `torch.BoolTensor`
    """
    if device.type != "cpu":
        kept = torch.empty(tuple(shape), device=device).bernoulli_(1.0 - p, generator=generator)
        return kept.bool()
    number = math.prod(shape)
    words = torch.empty(math.ceil(number * BITS / 64), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[:number].view(tuple(shape))
    return bits < round((1.0 - p) * 2**BITS) - 2 ** (BITS - 1)


MULTIPLIERS = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Odd numbers with bits all over (those of SplitMix64), to be multiplied with modulo 2^64."""


def hashed(numbers: torch.Tensor) -> torch.Tensor:
    """
    Numbers that look random, one for each 64-bit number. They depend on nothing else, so that any number of
    them come from the same few operations.
    """
    mixed = numbers * MULTIPLIERS[0]
    for multiplier in MULTIPLIERS[1:]:
        mixed.bitwise_xor_(mixed >> 31).mul_(multiplier)
    return mixed


def hashes(device: torch.device) -> bool:
    """
    Whether random numbers are hashed, instead of drawn by generators, one after the other: on a GPU, where
    seeding and drawing for each task would take longer than a layer.
    """
    return device.type != "cpu"


class TaskGenerators:
    """
    The random numbers of the tasks of one pass. Each draw of each task has a seed of its own, and padding,
    which depends on the other tasks, takes no numbers from the elements that count. So the dropout of a task
    depends neither on the tasks it shares a pass with nor on the thread it runs in.

    On a CPU, the tasks draw one after the other; elsewhere, the numbers of all tasks are
    [`hashed`](#hashed) from the seed of the task and the place of the element in it.

    # Parameters

    seeds : `Sequence[int]`
        One a task.
    rows : `TaskRows`
    device : `torch.device`
    """

    def __init__(self, seeds: Sequence[int], rows: TaskRows, device: torch.device) -> None:
        self._seeds = seeds
        self._rows = rows
        self._device = device
        self._generator = None if hashes(device) else torch.Generator(device)
        self._num_draws = 0
        self._of_rows: dict[int, torch.Tensor] = {}

    def kept_elements(self, inputs: torch.Tensor, p: float) -> torch.Tensor:
        """
        Which elements of a layer's inputs dropout keeps.

        # Parameters

        inputs : `torch.Tensor`
            Shape `(num_rows, dim)`, `(num_sentences, length, ...)`, or, for attention weights,
            `(num_sentences, num_heads, length, length)`.
        p : `float`
            The probability that an element is not kept.

        # Returns

        `torch.BoolTensor`
            In the shape of `inputs`.

        # Raises

        `NotSeparableError`, as [`TaskRows`](./task_rows.md#taskrows) does.
        """
        self._num_draws += 1
        if self._generator is None:
            return self._kept_by_hash(inputs, self._rows.slices(inputs, "dropout"), p)
        sizes, parts = self._rows.sizes(inputs, "dropout"), []
        for task, (seed, size) in enumerate(zip(self._seeds, sizes, strict=True)):
            self._generator.manual_seed(derived_seed(seed, self._num_draws))
            parts.append(self._kept_of_task(inputs, task, size, p))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _kept_by_hash(self, inputs: torch.Tensor, rows: RowSlices, p: float) -> torch.Tensor:
        """From the sum of a number for each row, and one for each position in every other dimension."""
        number = len(inputs) if inputs.dim() else 1
        if number not in self._of_rows:
            padding = rows.padding(self._device)
            seeds = hashed(torch.tensor(self._seeds, device=self._device))
            places = hashed((padding.positions + 1) * derived_seed(0))
            self._of_rows[number] = hashed(seeds.index_select(0, padding.tasks) + places)
        numbers = self._of_rows[number] + derived_seed(self._num_draws) * 2**31
        for dimension, size in enumerate(inputs.shape[1:], 1):
            positions = torch.arange(1, size + 1, device=self._device) * derived_seed(dimension)
            numbers = numbers.unsqueeze(-1) + hashed(positions)
        kept = hashed(numbers) < min(round((1.0 - p) * 2**64) - 2**63, 2**63 - 1)
        return kept.view(inputs.shape)

    def _kept_of_task(self, inputs: torch.Tensor, task: int, size: int, p: float) -> torch.Tensor:
        if inputs.dim() <= 2:
            shape = (size, *inputs.shape[1:]) if inputs.dim() else ()
            return kept_elements(shape, p, inputs.device, self._generator)
        if inputs.dim() == 4 and inputs.size(2) == inputs.size(3):
            return self._kept_attention(inputs, task, size, p)
        # The dimension with the padding comes first in the draw, so that padding takes the last numbers.
        shape = (inputs.size(1), size, *inputs.shape[2:])
        return kept_elements(shape, p, inputs.device, self._generator).transpose(0, 1)

    def _kept_attention(self, inputs: torch.Tensor, task: int, size: int, p: float) -> torch.Tensor:
        """Padding has two dimensions here, and what is kept of it makes no difference."""
        num_heads, length = inputs.size(1), inputs.size(2)
        width = min(length, self._rows.widths[task]) if self._rows.widths else length
        if self._rows.num_tasks > 1 and not self._rows.widths:
            raise NotSeparableError("dropout of attention")
        kept = kept_elements((size, num_heads, width, width), p, inputs.device, self._generator)
        if width == length:
            return kept
        padding = (0, length - width, 0, length - width)
        return torch.nn.functional.pad(kept, padding, value=True)
