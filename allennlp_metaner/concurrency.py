"""Several threads and forked processes: who may use models, tokenizers and global state, and when."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Optional

import torch

_lock = threading.Lock()
_holder: Optional[object] = None
_OWN: ContextVar[Optional[object]] = ContextVar("exclusive", default=None)


@contextmanager
def exclusive() -> Iterator[None]:
    """
    A context that one caller at a time is in; others wait. It may be entered again by who is in it, and by
    threads that run in a copy of their context (`contextvars.copy_context`).

    Labelling needs what only one caller can have: the random state and the number of threads of the process,
    the modes and the metrics of a model, the memory of an inner loop, and tokenizers, which raise "Already
    borrowed" if two threads use them. Encoders and tokenizers are even shared by models that know nothing of
    each other. So there is one such context for the whole process.
    """
    global _holder
    if _holder is not None and _OWN.get() is _holder:
        yield
        return
    with _lock:
        _holder = object()
        token = _OWN.set(_holder)
        try:
            yield
        finally:
            _holder = None
            _OWN.reset(token)


def _after_fork() -> None:
    """
    A forked child has none of its parent's threads. It would wait forever for one that held the lock, and for
    those that the parent computes with: OpenMP takes them for alive.
    """
    global _lock
    _lock = threading.Lock()
    torch.set_num_threads(1)


# Windows cannot fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
