"""Kernels: the weights of convolutions, as the network uses them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vizcnn.errors import DegenerateResult
from vizcnn.models.model import Model


def list_convolutions(model: Model) -> list[str]:
    """The names of the network's convolutions, in the order of registration."""
    return [name for name, module in model.layers().items() if isinstance(module, nn.Conv2d)]


def reads_image(model: Model, layer: str) -> bool:
    """Whether a layer's kernels are in the image's colours: it is the first convolution and takes all channels."""
    module = model.layer(layer)
    return (
        isinstance(module, nn.Conv2d)
        and list_convolutions(model)[0] == layer
        and module.in_channels == model.input.channels
        and module.groups == 1
    )


def find_used_kernels(model: Model, layer: str) -> Tensor:
    """The weights (K, C / groups, h, w) that a layer convolves with when the network runs in eval mode.

    Some weights are computed in each run, by hooks, parametrizations or the layer itself (weight norm, spectral norm,
    pruning, standardized weights). The attribute `weight` then holds those of an earlier run, maybe from before a
    checkpoint was loaded. In that case the network runs once and its convolutions are watched; then it is as it was.

    layer: an nn.Conv2d. Raises DegenerateResult where the weights are computed and the layer does not run.
    """
    module = model.layer(layer)
    assert isinstance(module, nn.Conv2d)
    if _are_stored(model, layer):
        return module.weight.detach().clone()  # (K, C / groups, h, w)
    watch = _Watch(module)
    with model.borrowed() as network, _keep_attributes(network), torch.no_grad(), watch.watch_runs(), watch:
        try:
            model(model.grey())
        except Exception:  # behind the layer it does not matter
            if watch.seen is None:
                raise
    if watch.seen is None:
        raise DegenerateResult(
            f"the weights of {layer!r} of {model.name} are computed when it runs, and it does not run in eval mode. "
            "Choose another layer"
        )
    return watch.seen


def _are_stored(model: Model, layer: str) -> bool:
    """Whether a layer's kernels are a parameter that nothing changes when the network runs."""
    module = model.layer(layer)
    assert isinstance(module, nn.Conv2d)
    parts = layer.split(".")
    around = [model.network, *(model.layer(".".join(parts[: i + 1])) for i in range(len(parts)))]
    return (
        "weight" in module._parameters
        and "forward" not in vars(module)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and not any(each._forward_pre_hooks for each in around)
    )


class _Watch(TorchFunctionMode):
    """While open, records the weights with which a module convolves in this thread."""

    def __init__(self, module: nn.Conv2d) -> None:
        super().__init__()
        self.module, self.thread, self.inside = module, threading.get_ident(), False
        self.seen: Tensor | None = None

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") == "conv2d":
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            if self._is_its_own(weight):
                self.seen = weight.detach().clone()
        return function(*args, **kwargs)

    def _is_its_own(self, weight: Tensor) -> bool:
        """Whether a weight is the module's own. Some wrappers set it and call its `forward`, past the hooks."""
        module = self.module
        shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
        return weight.shape == shape and (self.inside or weight is vars(module).get("weight"))

    @contextmanager
    def watch_runs(self) -> Iterator[_Watch]:
        """While the context is open, keep track of whether the module is running."""
        hooks = [
            self.module.register_forward_pre_hook(lambda *_: self._notice(True)),
            self.module.register_forward_hook(lambda *_: self._notice(False), always_call=True),
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _notice(self, inside: bool) -> None:
        if threading.get_ident() == self.thread:
            self.inside = inside


@contextmanager
def _keep_attributes(network: nn.Module) -> Iterator[None]:
    """Afterwards each module has the attributes that it had before, such as a weight that a hook sets."""
    before = [(module, dict(vars(module))) for module in network.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
