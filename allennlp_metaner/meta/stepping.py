"""Steps from the meta parameters to those of one task, a block of parameters at a time."""

from functools import partial
from typing import Optional

import torch

from allennlp_metaner.meta.inner_update import InnerUpdate
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.recording import Recording
from allennlp_metaner.meta.replacing import Halves


class Stepper:
    """What a thread needs for itself: an optimiser, and memory for the adapted parameters of a task."""

    def __init__(self, update: InnerUpdate) -> None:
        self.update = update
        self._buffers: list[torch.Tensor] = []

    def step(self, values: list[torch.Tensor], recording: Recording, task: int, last: bool) -> None:
        """Replace `values` by those after one step."""
        for block, numbers in enumerate(self.update.blocks):
            value = _end_to_end([values[number] for number in numbers])
            if len(self._buffers) == block:
                self._buffers.append(torch.empty_like(value))
            elif (self._buffers[block].dtype, self._buffers[block].device) != (value.dtype, value.device):
                # The model has moved since.
                self._buffers[block] = torch.empty_like(value)
            gradient = partial(_gradient, recording, numbers, task)
            stepped = self.update(block, value, gradient, self._buffers[block], last)
            for number, part in zip(numbers, _apart(stepped, [values[n] for n in numbers]), strict=True):
                values[number] = part


class Stepped:
    """`Values` after the first and only step: a matrix is computed when it is needed, and not kept."""

    def __init__(
        self,
        update: InnerUpdate,
        parameters: NamedParameters,
        recording: Recording,
        halves: Optional[Halves],
    ) -> None:
        self._update = update
        self._changes = {n for n, (_, parameter) in enumerate(parameters) if id(parameter) in (halves or {})}
        self._parameters = [parameter.detach() for _, parameter in parameters]
        self._recording = recording
        self._block = {number: block for block, numbers in enumerate(update.blocks) for number in numbers}
        self._vectors: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, task: int, number: int) -> torch.Tensor:
        block = self._block[number]
        numbers = self._update.blocks[block]
        if number in self._changes:
            return self._update.change(block, self._recording.gradient(number, task))
        if len(numbers) == 1:
            return self._stepped(task, block, numbers)
        if (task, number) not in self._vectors:
            stepped = self._stepped(task, block, numbers)
            parts = _apart(stepped, [self._parameters[n] for n in numbers])
            self._vectors.update(((task, n), part) for n, part in zip(numbers, parts, strict=True))
        return self._vectors[task, number]

    def _stepped(self, task: int, block: int, numbers: list[int]) -> torch.Tensor:
        value = _end_to_end([self._parameters[number] for number in numbers])
        return self._update(block, value, partial(_gradient, self._recording, numbers, task))


def _gradient(recording: Recording, numbers: list[int], task: int) -> torch.Tensor:
    return _end_to_end([recording.gradient(number, task) for number in numbers])


def _end_to_end(tensors: list[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat([tensor.flatten() for tensor in tensors])


def _apart(together: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    if len(like) == 1:
        return [together]
    parts = together.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]
