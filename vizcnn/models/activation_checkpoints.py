"""Activation checkpointing, left out while a network is looked at.

A checkpoint saves memory in training: it keeps no activations of a part of the network, and runs the part once more in
the backward pass. Its older, reentrant kind refuses `torch.autograd.grad`, and gives layers inside it no gradient; the
other kind fails where the second run differs from the first, as it does without the hooks and rules of a probe.
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
    """Instead of the reentrant checkpoint: in a thread that looks at a network the part is run as it is."""

    @staticmethod
    def apply(part: Callable[..., Any], preserve: bool, *inputs: Any) -> Any:
        return part(*inputs) if _is_looking() else _TORCHS["CheckpointFunction"].apply(part, preserve, *inputs)


def _keeping(frame: Any) -> Any:
    """Instead of the hooks by which the other kind drops activations."""
    return nullcontext() if _is_looking() else _TORCHS["_checkpoint_hook"](frame)


def _is_looking() -> bool:
    return getattr(_HERE, "depth", 0) > 0


_OURS: dict[str, Any] = {"CheckpointFunction": _Plain, "_checkpoint_hook": _keeping}
"""By torch's private names: a version that has others keeps its checkpoints."""


@contextmanager
def no_checkpoints() -> Iterator[None]:
    """While the context is open, parts under an activation checkpoint run in this thread as if they were under none."""
    _HERE.depth = getattr(_HERE, "depth", 0) + 1
    _install(1)
    try:
        yield
    finally:
        _HERE.depth -= 1
        _install(-1)


def _install(user: int) -> None:
    """Put our own in torch's place with the first user of the process, and what was there back with the last."""
    global _USERS
    with _INSTALLING.taken():
        if not _USERS:
            _TORCHS.update({name: getattr(checkpoint, name) for name in _OURS if hasattr(checkpoint, name)})
        _USERS += user
        for name, original in _TORCHS.items():
            setattr(checkpoint, name, _OURS[name] if _USERS else original)
