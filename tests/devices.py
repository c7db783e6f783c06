"""A device without a driver, for tests of what runs on a GPU."""

from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

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
        each.values
        if isinstance(each, Elsewhere)
        else torch.device("cpu")
        if isinstance(each, torch.device) and each == DEVICE
        else each
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
