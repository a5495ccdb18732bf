"""Read a network's layers while it runs, leaving nothing behind.

What is read has the usual form, wherever the network has its channels: (N, C), (N, C, H, W), or (N, C, T) for tokens,
see `vizcnn.models.layers.axes`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from vizcnn.errors import TargetError
from vizcnn.models.layers.axes import Axes, laid_back, layer_axes, usual
from vizcnn.models.model import Model, is_running
from vizcnn.models.targets import OUTPUT

Keep = Callable[[str, Tensor], Any]
"""What to keep of a layer's output, given its name. A later in-place operation must not be able to change it."""


def _whole(_name: str, output: Tensor) -> Tensor:
    return output.clone()


Hook = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def hooked(module: nn.Module, hook: Hook) -> Iterator[None]:
    """While the context is open, a forward hook on the module that serves this thread's runs of a Model only.

    Another thread may use the network on its own, and a checkpoint runs layers once more in the backward pass."""
    thread = threading.get_ident()

    def here(module: nn.Module, inputs: Any, output: Any) -> Any:
        return hook(module, inputs, output) if is_running() and threading.get_ident() == thread else None

    handle = module.register_forward_hook(here)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def capture(
    model: Model,
    layers: Iterable[str],
    axes: Mapping[str, Axes],
    then: Callable[[str], None] = lambda _: None,
    *,
    keep: Keep = _whole,
) -> Iterator[dict[str, Any]]:
    """While the context is open, the dictionary holds each layer's latest output, or what `keep` makes of it.

    Outputs are cloned: a later in-place operation of the network cannot change what was captured.
    A module that the network calls several times is captured at its last call.
    axes: of the layers, from `layer_axes`.
    then: is called with the layer's name after each capture.
    """
    seen: dict[str, Any] = {}
    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(hooked(model.layer(name), _keeper(name, seen, then, keep, axes.get(name))))
        yield seen


def _keeper(name: str, seen: dict[str, Any], then: Callable[[str], None], keep: Keep, axes: Axes | None) -> Hook:
    def see(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TargetError(f"layer {name!r} gives {type(output).__name__}, not a tensor. Choose a layer inside it")
        seen[name] = keep(name, usual(output, axes))
        then(name)

    return see


def activations(model: Model, images: Tensor, layers: Iterable[str]) -> dict[str, Any]:
    """The outputs of layers for images (N, C, H, W) in [0, 1]; OUTPUT names the network's own output, as it is."""
    wanted = [name for name in layers if name != OUTPUT]
    with capture(model, wanted, layer_axes(model, images, wanted)) as seen:
        output = model(images)
    _refuse_missing(model, wanted, seen)
    return {**seen, OUTPUT: output}


def _refuse_missing(model: Model, wanted: Iterable[str], seen: Mapping[str, Any]) -> None:
    if missing := [name for name in wanted if name not in seen]:
        raise TargetError(f"layer {missing[0]!r} of {model.name} did not run for this input, so it has no activation")


@contextmanager
def tapped(model: Model, layer: str, images: Tensor) -> Iterator[dict[str, Tensor]]:
    """While the context is open, the dictionary holds the layer's output as a leaf that the rest of the network's
    result can be differentiated by. images: that the network will run on.

    The rest goes on with a copy, so an in-place operation behind the layer cannot change the leaf. A module that the
    network calls several times is tapped at its last call.
    """
    axes, seen = layer_axes(model, images, [layer]).get(layer), dict[str, Tensor]()

    def tap(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TargetError(f"layer {layer!r} gives {type(output).__name__}, not a tensor. Choose a layer inside it")
        seen[layer] = usual(output.detach(), axes).requires_grad_()
        return laid_back(seen[layer], output, axes).clone()

    with hooked(model.layer(layer), tap):
        yield seen


class _Enough(BaseException):
    """Ends a run of the network before layers that nobody asked for; its own `except Exception` cannot stop this."""


@contextmanager
def reading(
    model: Model, layers: Collection[str], *, keep: Keep = _whole
) -> Iterator[Callable[[Tensor], dict[str, Any]]]:
    """While the context is open: a function from images (N, C, H, W) in [0, 1] to the layers' outputs, or to what
    `keep` makes of them; the network's own output comes as it is.

    It runs the network only as far as these layers; OUTPUT among them needs all of it. Outputs are cloned. A module
    that the network calls several times is read at its last call, which the first run finds out; the first images also
    say where the layers' axes are.
    """
    wanted = [name for name in layers if name != OUTPUT]
    last: dict[str, int] = {}
    calls: Counter[str] = Counter()
    stops = OUTPUT not in layers
    captured: dict[str, Any] | None = None

    def count(name: str) -> None:
        calls[name] += 1
        if stops and last and all(calls[each] >= last[each] for each in wanted):
            raise _Enough

    def read(images: Tensor) -> dict[str, Any]:
        nonlocal captured
        if captured is None:  # no hook of ours may see the runs that find out axes
            axes = layer_axes(model, images, wanted)
            captured = hooks.enter_context(capture(model, wanted, axes, count, keep=keep))
        return run(images, captured)

    def run(images: Tensor, seen: dict[str, Any]) -> dict[str, Any]:
        calls.clear()
        seen.clear()
        try:
            seen[OUTPUT] = model(images)
        except _Enough:
            return dict(seen)
        except Exception:  # such as a dense layer's, for pictures of a size that only the layers before it can take
            if not stops or any(name not in seen for name in wanted):
                raise
        _refuse_missing(model, wanted, seen)
        last.update(calls)
        return dict(seen)

    for name in wanted:
        model.layer(name)  # says so if there is none
    with ExitStack() as hooks:
        yield read
