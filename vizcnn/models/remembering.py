"""Remembering: what was found out about a network serves several calls, where somebody promises that it stays as it is.

Between two calls in a notebook a person may train on, so there every call finds out anew. The command line owns the
network that it has loaded, and may show it a thousand photographs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from torch.utils.weak import WeakIdKeyDictionary

from vizcnn.models.model import Model


class _Memory:
    """What is known of a network in one state. Anything that another state shows itself by makes it forget."""

    def __init__(self) -> None:
        self.state: Hashable = None
        self.known: dict[Hashable, Any] = {}

    def look_up(self, model: Model) -> dict[Hashable, Any]:
        state = _describe_state(model)
        if state != self.state:
            self.state, self.known = state, {}
        return self.known


_MEMORIES = WeakIdKeyDictionary()  # of a model: its _Memory


@contextmanager
def promise_unchanged(model: Model) -> Iterator[None]:
    """While the context is open, nobody changes the network between two calls, and what `keep` has kept serves both.

    Changes that leave a sign are seen nevertheless: other tensors, modes or hooks, and what torch counts as a change of
    a tensor. (A change through `tensor.data` leaves none, hence the promise.) A promise inside another one keeps what
    is known already."""
    before = _MEMORIES.get(model)
    _MEMORIES[model] = before or _Memory()
    try:
        yield
    finally:
        if before is None:
            del _MEMORIES[model]


def keep(model: Model, what: Hashable, found: Any) -> None:
    """Keep what was found out about a network, under a key with all that it depends on beside the network itself.

    Nothing is kept without a promise that the network stays as it is."""
    if model in _MEMORIES:
        _MEMORIES[model].look_up(model)[what] = found


def recall(model: Model, what: Hashable) -> Any:
    """What was kept under a key while the network was as it is now; None where nothing was."""
    return _MEMORIES[model].look_up(model).get(what) if model in _MEMORIES else None


def _describe_state(model: Model) -> Hashable:
    """The signs of a change: tensors by where they are and how often torch saw them change, modes and hooks."""
    network = model.network
    tensors = tuple(
        (name, id(value), 0 if value.is_inference() else value._version)
        for name, value in chain(network.named_parameters(), network.named_buffers())
    )
    modules = tuple(
        (id(module), module.training, *module._forward_pre_hooks, -1, *module._forward_hooks)
        for module in network.modules()
    )
    return id(network), tensors, modules
