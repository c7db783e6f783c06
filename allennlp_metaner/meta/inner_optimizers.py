"""The optimisers of the inner loop: functions of weights and gradients, with fresh state for every task."""

import inspect
from collections.abc import Callable
from typing import Any, Optional

import torch

from allennlp_metaner.nn.bert_adam import BertAdam, bert_adam_
from allennlp_metaner.nn.parameters import NamedParameters

Gradient = Callable[[], torch.Tensor]


class InnerOptimizer:
    """
    Steps with one parameter after the other, each as soon as its gradient is known and while it is in the
    CPU's cache. No task needs a snapshot to go back to, and only with `keeps_gradients` one of its gradients.
    Several tasks may take their steps in turns, or, if it `stacks`, together.

    This class serves any PyTorch optimiser. Its subclasses know the first step of one optimiser from a fresh
    state in closed form, so that it needs no state at all; see [`inner_optimizer`](#inner_optimizer).

    A bucket is one matrix, or, if the optimiser is `elementwise`, all vectors of the same options, in a row.

    # Parameters

    optimizer : `torch.optim.Optimizer`
        Its learning rates and other options are used. It is used up: nothing else can step with it.
    parameters : `NamedParameters`
        The parameters that it was made for. They are never changed.
    keeps_gradients : `bool`, optional (default = `False`)
        Whether the first gradients may stay in memory until the second step, instead of being computed again.
    """

    elementwise = False
    """Whether the step of an element depends on no other element of its parameter."""
    stacks = False
    """Whether the values of several tasks, a row a task, may make a step together."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: NamedParameters,
        keeps_gradients: bool = False,
    ) -> None:
        self.name = type(optimizer).__name__
        self.keeps_gradients = keeps_gradients
        # AllenNLP's "multi" hands all work on to other optimisers, which have groups of their own.
        self._optimizers = list(getattr(optimizer, "optimizers", {}).values()) or [optimizer]
        every_group = [group for each in self._optimizers for group in each.param_groups]
        groups = {id(p): group for group in every_group for p in group["params"]}
        self._groups: list[dict[str, Any]] = [groups[id(parameter)] for _, parameter in parameters]
        self._shapes = [parameter.shape for _, parameter in parameters]
        self.buckets: list[list[int]] = []
        self._put_vectors_together()
        self._unscaled = [(group, group["lr"]) for group in every_group]
        self._state: dict[tuple[int, int], Any] = {}
        self._scratch = torch.empty(0)
        placeholders = {id(p): torch.nn.Parameter(torch.empty(0)) for _, p in parameters}
        self._placeholders = [placeholders[id(parameter)] for _, parameter in parameters]
        for group in every_group:
            group["params"] = [placeholders[id(parameter)] for parameter in group["params"]]

    def _put_vectors_together(self) -> None:
        vectors: dict[int, list[int]] = {}
        for index, shape in enumerate(self._shapes):
            if self.elementwise and len(shape) <= 1:
                vectors.setdefault(id(self._groups[index]), []).append(index)
            else:
                self.buckets.append([index])
        self.buckets += vectors.values()

    def join(self, num_elements: int) -> None:
        """
        Make buckets of as many parameters of the same options as have so many elements, be they matrices or
        vectors, instead. Only for an optimiser that stacks, and while it has no state.
        """
        self.buckets = []
        latest, sizes = dict[int, list[int]](), dict[int, int]()
        for index, shape in enumerate(self._shapes):
            options, size = id(self._groups[index]), shape.numel()
            if options not in latest or sizes[options] + size > num_elements:
                latest[options], sizes[options] = [], 0
                self.buckets.append(latest[options])
            latest[options].append(index)
            sizes[options] += size

    def same_options(self, one: int, other: int) -> bool:
        return self._options(one) is self._options(other)

    def begin(self, learning_rate_scale: float) -> None:
        """
        Drop the state of all tasks, and set the learning rates.

        # Parameters

        learning_rate_scale : `float`
            A factor on the learning rate, for warm-up and decay.
        """
        self.reset()
        for group, unscaled in self._unscaled:
            group["lr"] = unscaled * learning_rate_scale

    def reset(self) -> None:
        """Drop the optimiser state of all tasks, also of buckets whose last step nothing has asked for."""
        self._state.clear()

    def __call__(
        self,
        bucket: int,
        value: torch.Tensor,
        gradient: Gradient,
        out: Optional[torch.Tensor] = None,
        last: bool = True,
        task: int = 0,
    ) -> torch.Tensor:
        """
        One step of one bucket of parameters.

        # Parameters

        bucket : `int`
            Its position in `buckets`, the list of the positions of each bucket's parameters.
        value : `torch.Tensor`
            Its value before the step: a parameter's, or the vectors of the bucket end to end.
        gradient : `Callable[[], torch.Tensor]`
            Computes the gradient. May be called again at the next step.
        out : `torch.Tensor`, optional (default = `None`)
            Where the value after the step goes; may be `value`. `None` makes a new tensor.
        last : `bool`, optional (default = `True`)
            Whether the bucket makes no more steps, so that no state has to be kept.
        task : `int`, optional (default = `0`)
            Whose state it is.

        # Returns

        `torch.Tensor`
        """
        if out is None:
            out = torch.empty_like(value)
        with torch.no_grad():
            self._step(bucket, task, value, gradient, out, last)
        return out

    def _options(self, bucket: int) -> dict[str, Any]:
        return self._groups[self.buckets[bucket][0]]

    def _step(
        self, bucket: int, task: int, value: torch.Tensor, gradient: Gradient, out: torch.Tensor, last: bool
    ) -> None:
        if out is not value:
            out.copy_(value)
        placeholder = self._placeholders[self.buckets[bucket][0]]
        placeholder.data, placeholder.grad = out, gradient()
        states = self._state.pop((bucket, task), [None] * len(self._optimizers))
        try:
            for optimizer, state in zip(self._optimizers, states, strict=True):
                if state is not None:
                    optimizer.state[placeholder] = state
                # It passes over all the others, since they have no gradient.
                optimizer.step()
        finally:
            placeholder.data, placeholder.grad = torch.empty(0), None
            states = [optimizer.state.pop(placeholder, None) for optimizer in self._optimizers]
        if not last:
            self._state[bucket, task] = states


EXTRAS = ("amsgrad", "maximize", "momentum", "differentiable")
"""Options that the closed forms leave out."""


def has_extras(group: dict[str, Any]) -> bool:
    return any(group.get(option) for option in EXTRAS)


class InnerSgd(InnerOptimizer):
    """Gradient descent without momentum."""

    elementwise = stacks = True

    def _step(
        self, bucket: int, task: int, value: torch.Tensor, gradient: Gradient, out: torch.Tensor, last: bool
    ) -> None:
        group = self._options(bucket)
        found = gradient()
        if group["weight_decay"]:
            found = found.add(value, alpha=group["weight_decay"])
        torch.add(value, found, alpha=-group["lr"], out=out)


class InnerAdam(InnerOptimizer):
    """
    Adam and AdamW. From a fresh state, the first step with gradient g is lr * g / (|g| + eps): what Adam
    keeps, parts of g and its square, is undone by the bias correction. The second step needs the first
    gradient; only a third one needs the moments in memory.
    """

    elementwise = stacks = True

    def _step(
        self, bucket: int, task: int, value: torch.Tensor, gradient: Gradient, out: torch.Tensor, last: bool
    ) -> None:
        group, state = self._options(bucket), self._state.pop((bucket, task), None)
        beta1, beta2 = group["betas"]
        found = gradient()
        again: Any = found if self.keeps_gradients else gradient
        if group["weight_decay"]:
            if group.get("decoupled_weight_decay"):
                value = torch.mul(value, 1 - group["lr"] * group["weight_decay"], out=out)
            else:
                found = found.add(value, alpha=group["weight_decay"])
                # The value of now is gone at the next step.
                again = found
        if state is None:
            denominator = torch.abs(found, out=self._scratch_like(found)).add_(group["eps"])
            torch.addcdiv(value, found, denominator, value=-group["lr"], out=out)
            if not last:
                self._state[bucket, task] = again
            return
        if not isinstance(state, tuple):
            first = state() if callable(state) else state
            mean = self._scratch_like(first) if last else torch.empty_like(first)
            torch.mul(first, 1 - beta1, out=mean)
            state = torch.ones((), device=first.device), mean, first.square_().mul_(1 - beta2)
        step, mean, square = state
        if out is not value:
            out.copy_(value)
        step += 1
        torch._fused_adam_(
            [out],
            [found],
            [mean],
            [square],
            [],
            [step],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        if not last:
            self._state[bucket, task] = step, mean, square

    def _scratch_like(self, like: torch.Tensor) -> torch.Tensor:
        """Always the same memory, which is still in the cache. Good until the next call."""
        scratch = self._scratch
        if scratch.numel() < like.numel() or (scratch.dtype, scratch.device) != (like.dtype, like.device):
            scratch = self._scratch = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        return scratch[: like.numel()].view(like.shape)


class InnerBertAdam(InnerOptimizer):
    """BertAdam, with moments of one bucket at a time."""

    stacks = True

    def _step(
        self, bucket: int, task: int, value: torch.Tensor, gradient: Gradient, out: torch.Tensor, last: bool
    ) -> None:
        if out is not value:
            out.copy_(value)
        mean, square = self._state.pop((bucket, task), None) or (
            torch.zeros_like(value),
            torch.zeros_like(value),
        )
        # Stacked values have a row a task, and single ones the shape of their parameter.
        shapes = [self._shapes[index] for index in self.buckets[bucket]]
        sizes = [shape.numel() for shape in shapes] if out.shape != shapes[0] else None
        bert_adam_([out], [gradient()], [mean], [square], self._options(bucket), sizes)
        if not last:
            self._state[bucket, task] = mean, square


CLOSED_FORMS: dict[type[torch.optim.Optimizer], type[InnerOptimizer]] = {
    torch.optim.SGD: InnerSgd,
    torch.optim.Adam: InnerAdam,
    BertAdam: InnerBertAdam,
}
"""The optimisers that have a subclass of [`InnerOptimizer`](#inneroptimizer) of their own."""


def inner_optimizer(
    optimizer: torch.optim.Optimizer, parameters: NamedParameters, keeps_gradients: bool = False
) -> InnerOptimizer:
    """
    The fastest [`InnerOptimizer`](#inneroptimizer) there is for `optimizer`. For the parameters see there.
    """
    for kind, closed_form in CLOSED_FORMS.items():
        # PyTorch wraps the method `step` of every class that it makes an optimiser of.
        same = isinstance(optimizer, kind) and inspect.unwrap(type(optimizer).step) is inspect.unwrap(
            kind.step
        )
        if same and not any(map(has_extras, optimizer.param_groups)):
            return closed_form(optimizer, parameters, keeps_gradients)
    return InnerOptimizer(optimizer, parameters, keeps_gradients)
