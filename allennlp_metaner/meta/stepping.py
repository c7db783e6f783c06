"""Steps from the meta parameters to those of each task of a group, a block of parameters at a time."""

from functools import partial
from typing import Optional

import torch

from allennlp_metaner.meta.inner_update import InnerUpdate
from allennlp_metaner.meta.memory import Buffers
from allennlp_metaner.meta.parameters import NamedParameters
from allennlp_metaner.meta.recording import Recording
from allennlp_metaner.meta.replacing import Halves


class Stepped:
    """
    `Values` after a step. A matrix is computed when it is first needed, so that the product that needs it
    finds it in the CPU's cache; the vectors of a block are computed for all tasks at once.

    # Parameters

    update : `InnerUpdate`
    parameters : `NamedParameters`
        The meta parameters.
    recording : `Recording`
        Of a pass of these tasks, and possibly others.
    first : `int`
        The first task's number in that pass.
    num_tasks : `int`
    start : `Stepped`, optional (default = `None`)
        The values before the step; `None` means the meta parameters.
    last : `bool`, optional (default = `True`)
        Whether no other step follows.
    buffers : `Buffers`, optional (default = `None`)
        Where matrices are kept. `None`, for a last step only: nowhere, they are computed whenever they are
        asked for.
    halves : `Halves`, optional (default = `None`)
        For what is in it, the values are the change that the step makes, in lower precision.
    """

    def __init__(
        self,
        update: InnerUpdate,
        parameters: NamedParameters,
        recording: Recording,
        first: int,
        num_tasks: int,
        start: "Optional[Stepped]" = None,
        last: bool = True,
        buffers: Optional[Buffers] = None,
        halves: Optional[Halves] = None,
    ) -> None:
        self._update = update
        self._changes = {n for n, (_, parameter) in enumerate(parameters) if id(parameter) in (halves or {})}
        self._parameters = [parameter.detach() for _, parameter in parameters]
        self._recording = recording
        self._first = first
        self._num_tasks = num_tasks
        self._start = start
        self._last = last
        self._buffers = buffers
        self._block = {number: block for block, numbers in enumerate(update.blocks) for number in numbers}
        self._vectors: dict[int, torch.Tensor] = {}
        self._done: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, task: int, number: int) -> torch.Tensor:
        if (task, number) in self._done:
            return self._done[task, number]
        block = self._block[number]
        if len(self._update.blocks[block]) > 1:
            self._step_vectors(block)
            return self._done[task, number]
        gradient = partial(self._recording.gradient, number, self._first + task)
        if number in self._changes:
            return self._update.change(block, gradient())
        value = self._start(task, number) if self._start else self._parameters[number]
        if self._buffers is None:
            return self._update(block, value, gradient, last=self._last, task=task)
        out = self._buffers.of(task, number, value)
        self._done[task, number] = self._update(block, value, gradient, out, self._last, task)
        return out

    def _step_vectors(self, block: int) -> torch.Tensor:
        """The vectors of a block, end to end, a row a task."""
        if block in self._vectors:
            return self._vectors[block]
        numbers = self._update.blocks[block]
        parameters = [self._parameters[number] for number in numbers]
        if self._start:
            value = self._start._step_vectors(block)
        else:
            value = torch.cat([parameter.flatten() for parameter in parameters]).expand(self._num_tasks, -1)
        out = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        gradient = partial(self._recording.gradients, numbers, self._first, self._num_tasks)
        self._vectors[block] = self._update(block, value, gradient, out, self._last)
        parts = out.split([parameter.numel() for parameter in parameters], dim=1)
        for number, parameter, part in zip(numbers, parameters, parts, strict=True):
            for task, own in enumerate(part.unbind()):
                self._done[task, number] = own if parameter.dim() else own.view(())
        return out


class Stepper:
    """
    What a worker needs for itself: an optimiser, and `buffers` for the adapted matrices of a group of tasks.

    # Parameters

    update : `InnerUpdate`
    parameters : `NamedParameters`
        The meta parameters.
    """

    def __init__(self, update: InnerUpdate, parameters: NamedParameters) -> None:
        self.update = update
        self._parameters = parameters
        self.buffers = Buffers(parameters)

    def step(
        self, recording: Recording, first: int, num_tasks: int, start: Optional[Stepped], last: bool
    ) -> Stepped:
        """
        The values after a step from `start`, written over its values; see [`Stepped`](#stepped). Without a
        start, other tasks begin.
        """
        if start is None:
            self.update.forget()
        return Stepped(self.update, self._parameters, recording, first, num_tasks, start, last, self.buffers)
