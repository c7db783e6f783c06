"""Everything on another device: on tensors that claim to be there, and refuse to mix with the CPU's."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import HEAD, Anil, FirstOrderMaml, MetaGradient, QueryOnly, Reptile
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn import randomness
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.retrieval import sentence_encoder
from allennlp_metaner.retrieval.sentence_encoder import TransformerSentenceEncoder
from allennlp_metaner.retrieval.similarity_index import ExactIndex
from allennlp_metaner.tasks.task_field import Task

DEVICE = torch.device("meta")
"""One that needs no driver. Tensors that are really there have no values, and count as strangers."""


class Elsewhere(torch.Tensor):
    """A tensor on `DEVICE`, whose values are in one of the CPU."""

    values: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
            requires_grad=values.requires_grad,
        )
        made.values = values
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        return self.values.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.values!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Devices(TorchDispatchMode):
    """A context in which `DEVICE` exists."""

    def __enter__(self) -> "Devices":
        original = torch.tensor

        def tensor(data: Any, device: Any = None, **options: Any) -> torch.Tensor:
            """PyTorch's own asks nobody before it makes a tensor on this device."""
            made = original(data, **options)
            return made if device is None else made.to(device)

        self._patch = mock.patch.object(torch, "tensor", tensor)
        self._patch.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    given, structure = tree_flatten((args, kwargs))
    target = kwargs.get("device")
    elsewhere = any(isinstance(each, Elsewhere) for each in given)
    if elsewhere and func not in _MOVES:
        # A number may be anywhere, as on a GPU.
        strangers = [
            each
            for each in given
            if isinstance(each, torch.Tensor) and not isinstance(each, Elsewhere) and each.dim()
        ]
        if strangers:
            shapes = [tuple(each.shape) for each in strangers]
            raise RuntimeError(f"{func}: expected all tensors on one device, but of shape {shapes} are not")
    originals = {id(each.values): each for each in given if isinstance(each, Elsewhere)}
    plain = [
        each.values if isinstance(each, Elsewhere) else torch.device("cpu") if each == DEVICE else each
        for each in given
    ]
    args, kwargs = tree_unflatten(plain, structure)
    result = func(*args, **kwargs)
    if target is not None:
        elsewhere = torch.device(target).type == DEVICE.type
    if not elsewhere:
        return result

    def wrapped(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        return originals[id(each)] if id(each) in originals else Elsewhere(each)

    return tree_map(wrapped, result)


def moved(value: Any) -> Any:
    return tree_map(lambda each: each.to(DEVICE) if isinstance(each, torch.Tensor) else each, value)


def back(value: torch.Tensor) -> torch.Tensor:
    assert isinstance(value, Elsewhere)
    return value.values


ALGORITHMS: dict[str, Callable[[], MetaGradient]] = {
    "auto": lambda: FirstOrderMaml(InnerLoop()),
    "three steps": lambda: FirstOrderMaml(InnerLoop(num_steps=3)),
    "per_task": lambda: FirstOrderMaml(InnerLoop(execution="per_task")),
    "one_by_one": lambda: FirstOrderMaml(InnerLoop(batching="one_by_one", num_steps=1)),
    "anil": lambda: Anil(InnerLoop(parameters=HEAD)),
    "reptile": lambda: Reptile(InnerLoop()),
    "query_only": QueryOnly,
}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers come as they do there."""
    monkeypatch.setattr(randomness, "hashes", lambda device: True)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_meta_gradient(
    make_tagger: Callable[..., MaxLossTagger], make_tasks: Callable[..., list[Task]], algorithm: str
) -> None:
    """With dropout, the same there as here, although a GPU has another execution."""
    model, tasks = make_tagger().train(), make_tasks(3, (1, 2, 5))
    expected = ALGORITHMS[algorithm]()(model, trainable_parameters(model), tasks, seed=3)
    with Devices():
        model.to(DEVICE)
        found = ALGORITHMS[algorithm]()(model, trainable_parameters(model), moved(tasks), seed=3)
        assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-9)
        ours = torch.cat([back(gradient).flatten() for gradient in found.gradient])
    theirs = torch.cat([gradient.flatten() for gradient in expected.gradient])
    assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


@pytest.mark.parametrize(
    ("options", "num_steps"),
    [
        ({}, 1),
        ({}, 2),
        ({"frozen_layers": None}, 2),
        ({"embedder": {"max_length": 9, "overlap": 3}}, 2),
        ({"constrain_decoding": True}, 1),
    ],
    ids=str,
)
def test_adaptation(
    make_tagger: Callable[..., MaxLossTagger],
    make_tasks: Callable[..., list[Task]],
    options: dict[str, Any],
    num_steps: int,
) -> None:
    model, tasks = make_tagger(**options), make_tasks(3, (1, 2, 5))
    expected = TestTimeAdaptation(InnerLoop(num_steps=num_steps)).predict(model, tasks)
    loop = InnerLoop(num_steps=num_steps)
    with Devices():
        model.to(DEVICE)
        found = TestTimeAdaptation(loop).predict(model, moved(tasks))
        for ours, theirs in zip(found, expected, strict=True):
            width = min(ours["logits"].size(1), theirs["logits"].size(1))
            logits = back(ours["logits"])[:, :width]
            torch.testing.assert_close(logits, theirs["logits"][:, :width], rtol=1e-9, atol=1e-12)
            assert ours["tags"] == theirs["tags"]
    # The execution of a GPU.
    assert all(state.batched for state in loop._states)


def test_retrieval(tiny_encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [["Maria", "visited", "Paris"], ["rain", "fell"], ["the", "German", "bank", "won"]]
    encoder = TransformerSentenceEncoder(tiny_encoder)
    expected = encoder.encode(sentences)
    monkeypatch.setattr(sentence_encoder, "encoding_device", lambda cuda_device: DEVICE)
    # Which tensors of another class do not know.
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    with Devices():
        found = encoder.encode(sentences)
        positions, _ = ExactIndex().search(found, found, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [row[0] for row in positions] == [0, 1, 2]


def test_a_tensor_on_the_wrong_device_is_noticed() -> None:
    with Devices():
        there = torch.ones(2, 3).to(DEVICE)
        with pytest.raises(RuntimeError, match=r"add.Tensor: expected all tensors on one device"):
            there + torch.ones(3)
        assert back(there + torch.tensor(1.0)).tolist() == [[2.0] * 3] * 2
        made = torch.arange(3, device=there.device)
        assert back(there * made).tolist() == [[0.0, 1.0, 2.0]] * 2
        assert there.tolist() == [[1.0] * 3] * 2
