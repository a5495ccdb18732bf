"""Activation checkpointing, switched off while a network is looked at.

A checkpoint saves memory in training: it keeps no activations of a part of the network and runs that part once more in
the backward pass. The older, reentrant kind refuses `torch.autograd.grad` and gives layers inside it no gradient. The
other kind fails where the second run differs from the first, and a probe's hooks and rules are gone by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch.utils import checkpoint

from vizcnn.process import Turns

_HERE = threading.local()
_INSTALLING = Turns()
_USERS = 0
_TORCHS: dict[str, Any] = {}  # what stood in torch when the first user came


class _Plain:
    """Stands in for the reentrant checkpoint: in a thread that looks at a network, the part simply runs."""

    @staticmethod
    def apply(part: Callable[..., Any], preserve: bool, *inputs: Any) -> Any:
        return part(*inputs) if _is_looking() else _TORCHS["CheckpointFunction"].apply(part, preserve, *inputs)


def _keep_activations(frame: Any) -> Any:
    """Stands in for the hooks with which the other kind drops activations: in such a thread, none are dropped."""
    return nullcontext() if _is_looking() else _TORCHS["_checkpoint_hook"](frame)


def _is_looking() -> bool:
    return getattr(_HERE, "depth", 0) > 0


_OURS: dict[str, Any] = {"CheckpointFunction": _Plain, "_checkpoint_hook": _keep_activations}
"""What replaces torch's own, by torch's private names. A version of torch without these names keeps its checkpoints."""


@contextmanager
def skip_checkpoints() -> Iterator[None]:
    """While the context is open, activation checkpoints have no effect in this thread."""
    _HERE.depth = getattr(_HERE, "depth", 0) + 1
    _install(1)
    try:
        yield
    finally:
        _HERE.depth -= 1
        _install(-1)


def _install(user: int) -> None:
    """Replace torch's functions when the first user comes (user = 1), put them back when the last goes (user = -1)."""
    global _USERS
    with _INSTALLING.take():
        if not _USERS:
            _TORCHS.update({name: getattr(checkpoint, name) for name in _OURS if hasattr(checkpoint, name)})
        _USERS += user
        for name, original in _TORCHS.items():
            setattr(checkpoint, name, _OURS[name] if _USERS else original)
