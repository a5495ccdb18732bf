"""Capture: read a network's layers while it runs, leaving nothing behind.

Activations have the usual form, (N, C), (N, C, H, W), or (N, C, T) for tokens, wherever the network has its channels
(see `vizcnn.models.layers.axes`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from vizcnn.errors import NetworkError, TargetError
from vizcnn.models.batches import default_batch
from vizcnn.models.layers.axes import Axes, find_axes, to_network_form, to_usual_form
from vizcnn.models.model import Model, is_running
from vizcnn.models.one_at_a_time import read_each
from vizcnn.models.outputs import find_output
from vizcnn.models.targets import OUTPUT, RAW, pick_layers

Keep = Callable[[str, Tensor], Any]
"""What to keep of a layer's output, given its name. A later in-place operation must not be able to change it."""


def _clone(_name: str, output: Tensor) -> Tensor:
    return output.clone()


Hook = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def hook_layer(module: nn.Module, hook: Hook) -> Iterator[None]:
    """While the context is open, a forward hook on the module, called in this thread's runs of a Model only.

    Another thread may run the network too, and a checkpoint runs layers once more in the backward pass."""
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
    keep: Keep = _clone,
) -> Iterator[dict[str, Any]]:
    """While the context is open, the dictionary holds each layer's latest output, or what `keep` makes of it.

    Outputs are cloned: a later in-place operation of the network cannot change what was captured.
    A module that the network calls several times is captured at its last call.
    axes: of the layers, from `find_axes`.
    then: is called with the layer's name after each capture.
    """
    seen: dict[str, Any] = {}
    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(hook_layer(model.layer(name), _make_hook(name, seen, then, keep, axes.get(name))))
        yield seen


def _make_hook(name: str, seen: dict[str, Any], then: Callable[[str], None], keep: Keep, axes: Axes | None) -> Hook:
    def see(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TargetError(f"layer {name!r} gives {type(output).__name__}, not a tensor. Choose a layer inside it")
        seen[name] = keep(name, to_usual_form(output, axes))
        then(name)

    return see


def read_activations(model: Model, images: Tensor, layers: Iterable[str]) -> dict[str, Any]:
    """The outputs of layers for images (N, C, H, W) in [0, 1], and with them what `read_answer` gives."""
    wanted = pick_layers(layers)

    def read(images: Tensor) -> dict[str, Any]:
        with capture(model, wanted, find_axes(model, images, wanted)) as seen:
            raw = model(images)
        _refuse_missing(model, wanted, seen)
        return {**seen, **read_answer(model, raw, len(images))}

    return read_each(model, images, read)


@torch.no_grad()
def choose_batch(model: Model, size: tuple[int, int]) -> int:
    """How many images of height and width `size` to run at once: one where the network takes one only, which two runs
    of grey images tell."""
    two = model.grey(size).repeat(2, 1, 1, 1)  # (2, C, H, W)
    with suppress(NetworkError):  # layers before the one that fails may be all that is asked for
        read_activations(model, two, [])
    return 1 if model.one_at_a_time else default_batch(size, model.device)


def read_answer(model: Model, raw: Any, images: int) -> dict[str, Any]:
    """What a network returned for so many images, under RAW, and under OUTPUT the tensor that is its output."""
    return {OUTPUT: find_output(raw, model.output, images), RAW: raw}


def _refuse_missing(model: Model, wanted: Iterable[str], seen: Mapping[str, Any]) -> None:
    """Raise TargetError for a layer that was wanted and not seen."""
    if missing := [name for name in wanted if name not in seen]:
        raise TargetError(f"layer {missing[0]!r} of {model.name} did not run for this input, so it has no activation")


@contextmanager
def tap_layer(model: Model, layer: str, images: Tensor) -> Iterator[dict[str, Tensor]]:
    """While the context is open, the dictionary holds the layer's output as a leaf with gradients: the network's output
    can be differentiated by it. images: that the network will run on.

    The network goes on with a copy, so that an in-place operation behind the layer cannot change the leaf. Of a module
    that the network calls several times, this is the output of the last call.
    """
    axes, seen = find_axes(model, images, [layer]).get(layer), dict[str, Tensor]()

    def tap(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TargetError(f"layer {layer!r} gives {type(output).__name__}, not a tensor. Choose a layer inside it")
        seen[layer] = to_usual_form(output.detach(), axes).requires_grad_()
        return to_network_form(seen[layer], output, axes).clone()

    with hook_layer(model.layer(layer), tap):
        yield seen


class _StopRun(BaseException):
    """Ends a run of the network once all wanted layers have run. No `except Exception` in the network catches it."""


@contextmanager
def open_reader(
    model: Model, layers: Collection[str], *, keep: Keep = _clone
) -> Iterator[Callable[[Tensor], dict[str, Any]]]:
    """While the context is open: a function from images (N, C, H, W) in [0, 1] to the layers' outputs, or to what
    `keep` makes of them; the network's own output comes as `read_answer` gives it.

    The network runs only as far as these layers need it, to its end if OUTPUT or RAW is among them. Outputs are cloned.
    A module that the network calls several times is read at its last call. The first images tell which call that is,
    and the layers' axes.
    """
    wanted = pick_layers(layers)
    last: dict[str, int] = {}
    calls: Counter[str] = Counter()
    may_stop = len(wanted) == len(layers)
    captured: dict[str, Any] | None = None

    def count(name: str) -> None:
        calls[name] += 1
        if may_stop and last and all(calls[each] >= last[each] for each in wanted):
            raise _StopRun

    def read(images: Tensor) -> dict[str, Any]:
        return read_each(model, images, read_together)

    def read_together(images: Tensor) -> dict[str, Any]:
        nonlocal captured
        if captured is None:  # no hook of ours may see the runs that find out axes
            axes = find_axes(model, images, wanted)
            captured = hooks.enter_context(capture(model, wanted, axes, count, keep=keep))
        return run(images, captured)

    def run(images: Tensor, seen: dict[str, Any]) -> dict[str, Any]:
        calls.clear()
        seen.clear()
        try:
            seen |= read_answer(model, model(images), len(images))
        except _StopRun:
            return dict(seen)
        except Exception:  # such as a dense layer's, for pictures of a size that only the layers before it can take
            if not may_stop or any(name not in seen for name in wanted):
                raise
        _refuse_missing(model, wanted, seen)
        last.update(calls)
        return dict(seen)

    for name in wanted:
        model.layer(name)  # says so if there is none
    with ExitStack() as hooks:
        yield read
