"""Read a network's layers while it runs, leaving nothing behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from vizcnn.errors import TargetError
from vizcnn.model import Model
from vizcnn.targets import OUTPUT


@contextmanager
def capture(model: Model, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While the context is open, the dictionary holds each layer's latest output.

    Outputs are cloned: a later in-place operation of the network cannot change what was captured.
    A module that the network calls several times is captured at its last call.
    """
    seen: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in layers:
            handle = model.layer(name).register_forward_hook(_keeper(name, seen))
            hooks.callback(handle.remove)
        yield seen


def _keeper(name: str, seen: dict[str, Tensor]) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TargetError(f"layer {name!r} gives {type(output).__name__}, not a tensor. Choose a layer inside it")
        seen[name] = output.clone()

    return keep


def activations(model: Model, images: Tensor, layers: Iterable[str]) -> dict[str, Any]:
    """The outputs of layers for images (N, C, H, W) in [0, 1]; OUTPUT names the network's own output."""
    wanted = [name for name in layers if name != OUTPUT]
    with capture(model, wanted) as seen:
        output = model(images)
    if missing := [name for name in wanted if name not in seen]:
        raise TargetError(f"layer {missing[0]!r} of {model.name} did not run for this input, so it has no activation")
    return {**seen, OUTPUT: output}


@contextmanager
def tapped(model: Model, layer: str) -> Iterator[dict[str, Tensor]]:
    """While the context is open, the dictionary holds the layer's output as a leaf that the rest of the network's
    result can be differentiated by.

    The rest goes on with a copy, so an in-place operation behind the layer cannot change the leaf. A module that the
    network calls several times is tapped at its last call.
    """
    seen: dict[str, Tensor] = {}

    def tap(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TargetError(f"layer {layer!r} gives {type(output).__name__}, not a tensor. Choose a layer inside it")
        seen[layer] = output.detach().requires_grad_()
        return seen[layer].clone()

    handle = model.layer(layer).register_forward_hook(tap)
    try:
        yield seen
    finally:
        handle.remove()
