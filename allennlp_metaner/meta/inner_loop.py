"""The inner update: a few optimiser steps on a support set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Optional, TypeVar

import torch
from allennlp.common import FromParams, Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.training.optimizers import AdamOptimizer, Optimizer

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.meta.adapted import Adapted, used
from allennlp_metaner.meta.chunks import chunks_of
from allennlp_metaner.meta.inner_update import inner_update
from allennlp_metaner.meta.memory import give_back_free_memory, no_garbage_collection
from allennlp_metaner.meta.parameters import NamedParameters, selected
from allennlp_metaner.meta.passes import BATCHINGS, Batch, Learner, SupportPasses, batches_of_steps
from allennlp_metaner.meta.recording import Recording
from allennlp_metaner.meta.replacing import NotSeparableError, halves_of
from allennlp_metaner.meta.seeds import derived_seed
from allennlp_metaner.meta.stepping import Stepped, Stepper
from allennlp_metaner.meta.workers import Workers

R = TypeVar("R")

MAX_WORKERS = 3
"""Each needs memory for a copy of the trainable parameters."""

LARGE = 2**27
"""Of models whose trainable parameters have more bytes, at most two chunks are worked on at the same time,
each task by task. The gradients of the first step are computed again in the second, and memory is given back
to the system, instead of being kept."""

GROUP_BYTES = 2**29
"""For the adapted parameters of a group of tasks, if the model is not large."""

DTYPES = ("float32", "bfloat16")
"""Of matrix products."""


class InnerLoop(FromParams):
    """
    Gradient steps on the support set (Eq. 7-8 in meta-training, Eq. 17 in adaptation), with an optimiser
    whose state is fresh for every task.

    The model's own parameters are never changed. All tasks start at them, so the support sets of a chunk of
    tasks go through the first step together, see [`record`](./recording.md#record). The sentences of one task
    are too few to keep several CPU cores busy, so chunks are worked on at the same time, one a core.

    # Parameters

    optimizer : `Lazy[Optimizer]`, optional (default = Adam with a learning rate of 3e-5)
        Any registered AllenNLP optimiser. Adam, AdamW, BertAdam and plain SGD are fastest.
    num_steps : `int`, optional (default = `2`)
        The number of steps, at least 1; with `batching` = "one_by_one", on each sentence.
    chunk_size : `int`, optional (default = `384`)
        How many subwords go through the first step together. Activations take memory in proportion; the
        result does not depend on it, but for rounding and the random numbers of dropout.
    group_size : `int`, optional (default = `None`)
        How many tasks of a chunk go through later steps and the query together. Each needs memory for two
        copies of the trainable parameters, its values and its first gradients. `None`: as many as have values
        of 512 MiB; of large models, one, whose first gradients are computed twice instead.
    num_workers : `int`, optional (default = `None`)
        How many chunks are worked on at the same time. Each needs memory for a group of tasks. `None`: as
        many as PyTorch has threads, at most 3, or 2 for large models; on a GPU, 1.
    dtype : `str`, optional (default = `"float32"`)
        "bfloat16" takes the matrix products of an adaptation by a single step in that precision, with
        the step itself kept apart from the weights, in which it would be lost. For Adam, AdamW and SGD.
    batching : `str`, optional (default = `"together"`)
        "together" takes each step on all sentences of the support set, "one_by_one" on one after the other,
        the nearest first, and begins again with it `num_steps` times. Adam's state lasts through all steps.
    parameters : `list[str]`, optional (default = `None`)
        Which of the trainable parameters adapt: those whose names one of these regular expressions matches
        anywhere (`["^classifier\\."]` is the tagger's head). All others stay at the meta parameters, and no
        gradient goes through layers below all that adapts. `None`: all.

    # Raises

    `ConfigurationError`, if an argument is out of range, or if `parameters` match nothing.
    """

    def __init__(
        self,
        optimizer: Lazy[Optimizer] = Lazy(AdamOptimizer, lr=3e-5),
        num_steps: int = 2,
        chunk_size: int = 384,
        group_size: Optional[int] = None,
        num_workers: Optional[int] = None,
        dtype: str = "float32",
        batching: str = "together",
        parameters: Optional[list[str]] = None,
    ) -> None:
        for name, value in (
            ("num_steps", num_steps),
            ("chunk_size", chunk_size),
            ("group_size", group_size),
            ("num_workers", num_workers),
        ):
            if value is not None and value < 1:
                raise ConfigurationError(f"{name}={value} of the inner loop must be at least 1")
        for name, choice, choices in (("dtype", dtype, DTYPES), ("batching", batching, BATCHINGS)):
            if choice not in choices:
                raise ConfigurationError(
                    f"{name}={choice!r} of the inner loop must be one of {', '.join(choices)}"
                )
        self._dtype = dtype
        self._batching = batching
        self._regexes = parameters
        self.adapts_all = parameters is None
        self._optimizer = optimizer
        self.num_steps = num_steps
        self._chunk_size = chunk_size
        self._group_size = group_size
        self._num_workers = num_workers
        self._made_for: list[torch.nn.Parameter] = []
        self._steppers: list[Stepper] = []
        self._workers = Workers()

    @exclusive()
    def map(
        self,
        use: Callable[[Adapted], R],
        model: Learner,
        parameters: NamedParameters,
        supports: Sequence[Batch],
        queries: Optional[Sequence[Batch]] = None,
        together: bool = True,
        max_loss_weight: float | None = None,
        learning_rate_scale: float = 1.0,
        seed: int = 0,
    ) -> list[tuple[list[int], R]]:
        """
        Adapt the parameters to each support set, and do something with them.

        # Parameters

        use : `Callable[[Adapted], R]`
            What is done with the adapted parameters, possibly at the same time in several threads. If it
            raises `NotSeparableError` for several tasks, it is called again for each alone.
        model : `Learner`
        parameters : `NamedParameters`
            The trainable parameters of the model.
        supports : `Sequence[Batch]`
            The batches of support sentences, one a task.
        queries : `Sequence[Batch]`, optional (default = `None`)
            What `use` will run at the adapted parameters.
        together : `bool`, optional (default = `True`)
            If true, if there are queries, and if the inner loop is a single step, `use` gets many tasks with
            queries of like length at once, for one forward pass; a layer's adapted values then exist only
            while they are needed. Otherwise it gets the tasks of a group, whose values are all in memory.
        max_loss_weight : `float`, optional (default = `None`)
            lambda of Eq. 13; `None` means the model's own.
        learning_rate_scale : `float`, optional (default = `1.0`)
            A factor on the optimiser's learning rate, for warm-up and decay.
        seed : `int`, optional (default = `0`)
            Random numbers depend on it, and on how the tasks fall into chunks.

        # Returns

        `list[tuple[list[int], R]]`
            The numbers of the tasks and what `use` returned, for each of its calls, in a fixed order.
        """
        assert isinstance(model, torch.nn.Module)
        parameters = self.selected(parameters)
        steps = [self.batches_of_steps(support) for support in supports]
        at_once = queries is not None and together and all(len(batches) == 1 for batches in steps)
        halves = None
        if self._dtype == "bfloat16":
            if not at_once:
                raise ConfigurationError(
                    "dtype = 'bfloat16' of the inner loop is for adaptation by a single step: in "
                    "meta-training, and after the first step, weights of that precision would lose the steps"
                )
            halves = halves_of(model)
        chunks = chunks_of(supports, queries or supports, self._chunk_size)
        at_a_time = max(1, min(self._most_at_a_time(parameters), len(chunks)))
        self._prepare(parameters, at_a_time)
        idle: SimpleQueue[Stepper] = SimpleQueue()
        for stepper in self._steppers:
            idle.put(stepper)

        def work(chunk: list[int], own_seed: int) -> list[tuple[list[int], R]]:
            stepper = idle.get()
            try:
                passes = SupportPasses(model, parameters, steps, max_loss_weight, halves)
                passes.generator.manual_seed(own_seed)
                stepper.update.begin(learning_rate_scale)
                if queries and at_once:
                    found = self._at_once(stepper, passes, chunk, queries)
                else:
                    found = self._in_groups(stepper, passes, chunk, None if together else queries)
                return [result for adapted in found for result in used(use, adapted)]
            finally:
                idle.put(stepper)

        seeds = [derived_seed(seed, chunk[0]) for chunk in chunks]
        # Such as that of the last gradient, which the workers' threads have no use for.
        self._give_back_memory(parameters)
        try:
            with no_garbage_collection():
                results = self._workers.map(work, chunks, seeds, model, at_a_time)
        finally:
            self._give_back_memory(parameters)
        return [result for of_chunk in results for result in of_chunk]

    def selected(self, parameters: NamedParameters) -> NamedParameters:
        """Those of the trainable parameters that adapt; a `ConfigurationError`, if there are none."""
        return selected(parameters, self._regexes, "the inner loop")

    def batches_of_steps(self, support: Batch) -> list[Batch]:
        """The sentences of a support set that each step is taken on, step by step."""
        return batches_of_steps(support, self.num_steps, self._batching)

    def make_optimizer(self, parameters: NamedParameters) -> Optimizer:
        """A new optimiser for these parameters."""
        return self._optimizer.construct(model_parameters=parameters)

    def _in_groups(
        self, stepper: Stepper, passes: SupportPasses, chunk: list[int], queries: Optional[Sequence[Batch]]
    ) -> Iterator[Adapted]:
        most = self._most_in_a_group(passes.parameters)
        for tasks, recording in passes.first(chunk):
            for first, group in passes.groups(tasks, most):
                try:
                    found: Iterable[Adapted] = [
                        self._after_all_steps(stepper, passes, recording, first, group, queries)
                    ]
                except NotSeparableError:
                    # One after the other, when they are asked for: they share the memory of the first.
                    found = (
                        self._after_all_steps(stepper, passes, recording, first + n, [task], queries)
                        for n, task in enumerate(group)
                    )
                yield from found

    def _after_all_steps(
        self,
        stepper: Stepper,
        passes: SupportPasses,
        recording: Recording,
        first: int,
        group: list[int],
        queries: Optional[Sequence[Batch]],
    ) -> Adapted:
        again, prepared = passes.prepared(group, queries)
        values = stepper.step(recording, first, len(group), None, last=not again)
        for number, supports in enumerate(again, start=1):
            own = passes.record(supports, values)
            values = stepper.step(own, 0, len(group), values, last=number == len(again))
        return Adapted(group, values, passes.parameters, passes.generator, prepared)

    def _at_once(
        self, stepper: Stepper, passes: SupportPasses, chunk: list[int], queries: Sequence[Batch]
    ) -> Iterator[Adapted]:
        for tasks, recording in passes.first(chunk):
            values = Stepped(
                stepper.update, passes.parameters, recording, 0, len(tasks), halves=passes.halves
            )
            own_queries = [queries[task] for task in tasks]
            yield Adapted(tasks, values, passes.parameters, passes.generator, own_queries, passes.halves)

    def _give_back_memory(self, parameters: NamedParameters) -> None:
        if _is_large(parameters):
            for stepper in self._steppers:
                stepper.buffers.clear()
            give_back_free_memory()

    def _most_at_a_time(self, parameters: NamedParameters) -> int:
        if parameters[0][1].device.type != "cpu":
            return 1
        most = 2 if _is_large(parameters) else MAX_WORKERS
        return self._num_workers or min(torch.get_num_threads(), most)

    def _most_in_a_group(self, parameters: NamedParameters) -> int:
        most = 1 if _is_large(parameters) else GROUP_BYTES // _num_bytes(parameters)
        return self._group_size or max(1, most)

    def _prepare(self, parameters: NamedParameters, num_steppers: int) -> None:
        """
        Building an optimiser logs its settings and sorts parameters into groups, which is too much for every
        task. So they are kept.
        """
        tensors = [parameter for _, parameter in parameters]
        if list(map(id, tensors)) != list(map(id, self._made_for)):
            self._made_for, self._steppers, self._workers = tensors, [], Workers()
        keeps_gradients = not _is_large(parameters)
        while len(self._steppers) < num_steppers:
            update = inner_update(self.make_optimizer(parameters), parameters, keeps_gradients)
            self._steppers.append(Stepper(update, parameters))


def _num_bytes(parameters: NamedParameters) -> int:
    return sum(parameter.numel() * parameter.element_size() for _, parameter in parameters)


def _is_large(parameters: NamedParameters) -> bool:
    return _num_bytes(parameters) > LARGE
