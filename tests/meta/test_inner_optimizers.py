"""The update of an inner optimiser, parameter by parameter, against the optimiser itself on copies."""

from collections.abc import Callable
from typing import Any, Optional

import pytest
import torch
from allennlp.common import Lazy
from allennlp.training.optimizers import MultiOptimizer, Optimizer, SgdOptimizer

from allennlp_metaner.meta.inner_optimizers import (
    InnerAdam,
    InnerBertAdam,
    InnerOptimizer,
    InnerSgd,
    inner_optimizer,
)
from allennlp_metaner.nn.bert_adam import BertAdam
from allennlp_metaner.nn.parameters import NamedParameters

NUM_STEPS = 4
Maker = Callable[..., torch.optim.Optimizer]
Tensors = list[torch.Tensor]


def of_pytorch(optimizer: type[torch.optim.Optimizer], **options: Any) -> Maker:
    """Makes one with other learning rates for the matrices and for one of the vectors."""

    def make(parameters: NamedParameters) -> torch.optim.Optimizer:
        special = {"scale": 0.3, "matrix": 0.5}
        groups = [
            {"params": [p for name, p in parameters if name.startswith(prefix)], "lr": lr}
            for prefix, lr in special.items()
        ]
        others = [p for name, p in parameters if not name.startswith(tuple(special))]
        return optimizer([*groups, {"params": others}], lr=0.1, **options)

    return make


def of_allennlp(name: str, **options: Any) -> Maker:
    return lambda parameters: Optimizer.by_name(name)(model_parameters=parameters, **options)


def multi(parameters: NamedParameters) -> torch.optim.Optimizer:
    """AllenNLP's, of several optimisers."""
    return MultiOptimizer(
        parameters,
        {"default": Lazy(SgdOptimizer, lr=0.1, momentum=0.5), "other": Lazy(BertAdam, lr=0.01)},
        [(["matrix"], {"optimizer_name": "other"})],
    )


class Backwards(torch.optim.Adam):
    """An Adam with a step of its own."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.neg_()
        return super().step(closure)


OPTIMIZERS: dict[str, tuple[Maker, type[InnerOptimizer]]] = {
    "sgd": (of_pytorch(torch.optim.SGD), InnerSgd),
    "sgd with decay": (of_pytorch(torch.optim.SGD, weight_decay=0.1), InnerSgd),
    "momentum": (of_pytorch(torch.optim.SGD, momentum=0.9), InnerOptimizer),
    "nesterov": (of_pytorch(torch.optim.SGD, momentum=0.9, nesterov=True), InnerOptimizer),
    "uphill": (of_pytorch(torch.optim.SGD, maximize=True), InnerOptimizer),
    "adam": (of_pytorch(torch.optim.Adam), InnerAdam),
    "adam with L2": (of_pytorch(torch.optim.Adam, weight_decay=0.1), InnerAdam),
    "adam with other options": (of_pytorch(torch.optim.Adam, betas=(0.5, 0.7), eps=0.1), InnerAdam),
    "amsgrad": (of_pytorch(torch.optim.Adam, amsgrad=True), InnerOptimizer),
    "adam uphill": (of_pytorch(torch.optim.Adam, maximize=True), InnerOptimizer),
    "adamw": (of_pytorch(torch.optim.AdamW), InnerAdam),
    "adamw with more decay": (of_pytorch(torch.optim.AdamW, weight_decay=0.5), InnerAdam),
    "bert_adam": (of_allennlp("bert_adam", lr=0.1), InnerBertAdam),
    "bert_adam without clipping": (of_allennlp("bert_adam", lr=0.1, max_grad_norm=0.0), InnerBertAdam),
    "adam of AllenNLP": (
        of_allennlp("adam", lr=0.1, parameter_groups=[(["^scale"], {"lr": 0.3})]),
        InnerAdam,
    ),
    "adam backwards": (of_pytorch(Backwards), InnerOptimizer),
    "rmsprop": (of_pytorch(torch.optim.RMSprop), InnerOptimizer),
    "rmsprop with momentum": (of_pytorch(torch.optim.RMSprop, momentum=0.9, centered=True), InnerOptimizer),
    "adagrad": (of_pytorch(torch.optim.Adagrad), InnerOptimizer),
    "adamax": (of_pytorch(torch.optim.Adamax), InnerOptimizer),
    "averaged": (of_pytorch(torch.optim.ASGD), InnerOptimizer),
    "dense_sparse_adam": (of_allennlp("dense_sparse_adam", lr=0.1), InnerOptimizer),
    "adafactor": (of_allennlp("huggingface_adafactor", lr=0.1, relative_step=False), InnerOptimizer),
    "multi": (multi, InnerOptimizer),
}


@pytest.fixture
def parameters() -> NamedParameters:
    """Two matrices, three vectors, a number, and a tensor of three dimensions."""
    torch.manual_seed(0)
    shapes = {
        "bias": (4,),
        "matrix": (3, 4),
        "scale": (4,),
        "dense.weight": (5, 2),
        "LayerNorm.bias": (2,),
        "temperature": (),
        "cube": (2, 3, 2),
    }
    return [
        (name, torch.nn.Parameter(torch.randn(shape, dtype=torch.float64))) for name, shape in shapes.items()
    ]


def gradients_of(parameters: NamedParameters, num_steps: int = NUM_STEPS, seed: int = 1) -> list[Tensors]:
    """For every step; of very different sizes, and one without any."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [10.0 ** (number - 4) for number in range(len(parameters))]
    sizes[3] = 0.0
    return [
        [
            torch.randn(p.shape, dtype=p.dtype, generator=generator) * size
            for (_, p), size in zip(parameters, sizes, strict=True)
        ]
        for _ in range(num_steps)
    ]


def expected(
    make: Maker, parameters: NamedParameters, gradients: list[Tensors], scale: float = 1.0
) -> Tensors:
    copies = [(name, torch.nn.Parameter(p.detach().clone())) for name, p in parameters]
    optimizer = make(copies)
    for each in getattr(optimizer, "optimizers", {"": optimizer}).values():
        for group in each.param_groups:
            group["lr"] *= scale
    for of_step in gradients:
        for (_, copy), gradient in zip(copies, of_step, strict=True):
            copy.grad = gradient.clone()
        optimizer.step()
    return [copy.detach() for _, copy in copies]


def joined(tensors: Tensors) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat([tensor.flatten() for tensor in tensors])


def updated(
    update: InnerOptimizer,
    parameters: NamedParameters,
    gradients: list[Tensors],
    scale: float = 1.0,
    in_place: bool = True,
) -> Tensors:
    """Step after step, bucket after bucket; the last one ends the task."""
    update.begin(scale)
    values = [p.detach() for _, p in parameters]
    outs: list[Optional[torch.Tensor]] = [None] * len(update.buckets)
    for number, of_step in enumerate(gradients):
        for bucket, numbers in enumerate(update.buckets):
            value = joined([values[n] for n in numbers])
            # A gradient of its own at every call, as in a recording: an update may write into it.
            stepped = update(
                bucket,
                value,
                lambda numbers=numbers, of_step=of_step: joined([of_step[n] for n in numbers]).clone(),
                outs[bucket],
                last=number == len(gradients) - 1,
            )
            if in_place:
                assert outs[bucket] is None or stepped is outs[bucket]
                outs[bucket] = stepped
            parts = stepped.split([values[n].numel() for n in numbers]) if len(numbers) > 1 else [stepped]
            for n, part in zip(numbers, parts, strict=True):
                values[n] = part.view_as(values[n])
    return values


@pytest.mark.parametrize("keeps_gradients", [False, True])
@pytest.mark.parametrize("num_steps", [1, 2, NUM_STEPS])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_the_optimizer(
    parameters: NamedParameters, name: str, num_steps: int, keeps_gradients: bool
) -> None:
    make, kind = OPTIMIZERS[name]
    update = inner_optimizer(make(parameters), parameters, keeps_gradients)
    assert type(update) is kind
    before = [p.detach().clone() for _, p in parameters]
    # Task after task, with the learning rates of different moments.
    for seed, scale in [(1, 1.0), (2, 0.5), (1, 1.0), (3, 0.0)]:
        gradients = gradients_of(parameters, num_steps, seed)
        theirs = expected(make, parameters, gradients, scale)
        for in_place in (True, False):
            ours = updated(update, parameters, gradients, scale, in_place)
            for (_, parameter), a, b in zip(parameters, ours, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
                assert a.data_ptr() != parameter.data_ptr()
    # Neither the parameters nor their gradients took part.
    assert all(torch.equal(p, value) for (_, p), value in zip(parameters, before, strict=True))
    assert all(p.grad is None for _, p in parameters)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_several_steps_make_a_difference(parameters: NamedParameters, name: str) -> None:
    """So a missing one, or a forgotten state, would show above."""
    make, _ = OPTIMIZERS[name]
    gradients = gradients_of(parameters)
    start, one, all_ = (joined(expected(make, parameters, gradients[:n])) for n in (0, 1, NUM_STEPS))
    assert (one - start).norm() > 1e-3
    assert (all_ - one).norm() > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_task_that_ends_early_leaves_no_state(parameters: NamedParameters, name: str) -> None:
    """As after an exception, in the middle of a step."""
    make, _ = OPTIMIZERS[name]
    update = inner_optimizer(make(parameters), parameters)
    first, second = gradients_of(parameters, 2, 1), gradients_of(parameters, 2, 2)
    theirs = updated(update, parameters, second)
    update.begin(1.0)
    value = joined([parameters[n][1].detach() for n in update.buckets[0]])
    update(0, value, lambda: joined([first[0][n] for n in update.buckets[0]]), last=False)
    for a, b in zip(updated(update, parameters, second), theirs, strict=True):
        assert torch.equal(a, b)


def test_every_parameter_is_in_one_bucket(parameters: NamedParameters) -> None:
    for make, kind in OPTIMIZERS.values():
        update = inner_optimizer(make(parameters), parameters)
        assert sorted(n for bucket in update.buckets for n in bucket) == list(range(len(parameters)))
        together = [bucket for bucket in update.buckets if len(bucket) > 1]
        # Vectors with the same options go together where the optimiser looks at every number alone.
        names = [[parameters[n][0] for n in bucket] for bucket in together]
        assert names == ([["bias", "LayerNorm.bias", "temperature"]] if kind.elementwise else [])
        assert isinstance(update, kind)


@pytest.mark.parametrize("name", ["adam", "bert_adam", "momentum"])
def test_the_last_step_keeps_nothing(parameters: NamedParameters, name: str) -> None:
    make, _ = OPTIMIZERS[name]
    optimizer = make(parameters)
    update = inner_optimizer(optimizer, parameters)
    updated(update, parameters, gradients_of(parameters))
    assert update._state == {}
    assert dict(optimizer.state) == {}
    assert all(p.numel() == 0 for group in optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_single_precision(parameters: NamedParameters, name: str) -> None:
    make, _ = OPTIMIZERS[name]
    single = [(n, torch.nn.Parameter(p.detach().float())) for n, p in parameters]
    gradients = [[g.float() for g in of_step] for of_step in gradients_of(parameters)]
    ours = updated(inner_optimizer(make(single), single), single, gradients)
    for a, b in zip(ours, expected(make, single, gradients), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
