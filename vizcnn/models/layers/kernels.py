"""The kernels of convolutions, as the network uses them."""

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


def convolutions(model: Model) -> list[str]:
    """The names of the network's convolutions, in the order of registration."""
    return [name for name, module in model.layers().items() if isinstance(module, nn.Conv2d)]


def reads_image(model: Model, layer: str) -> bool:
    """Whether the channels of a layer's kernels are those of the image: it is the first convolution and takes all."""
    module = model.layer(layer)
    return (
        isinstance(module, nn.Conv2d)
        and convolutions(model)[0] == layer
        and module.in_channels == model.input.channels
        and module.groups == 1
    )


def used_kernels(model: Model, layer: str) -> Tensor:
    """The weights (K, C / groups, h, w) with which the next run of the network in eval mode convolves in a layer.

    Where hooks, parametrizations or the layer itself compute them in each run (weight norm, spectral norm, pruning,
    standardized weights), its attribute `weight` is left from an earlier run, of which a checkpoint that was loaded
    since knows nothing. So the network is run once and its convolutions are watched. Afterwards it is as it was.

    layer: an nn.Conv2d. Raises DegenerateResult where it does not run, so that nobody knows its weights.
    """
    module = model.layer(layer)
    assert isinstance(module, nn.Conv2d)
    if _are_stored(model, layer):
        return module.weight.detach().clone()  # (K, C / groups, h, w)
    watch = _Watch(module)
    with model.borrowed() as network, _attributes_kept(network), torch.no_grad(), watch.hooked(), watch:
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
    """Whether a layer's kernels are a parameter that nothing changes before a run."""
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
    """While open, sees the weights with which a module convolves in this thread."""

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
        """Some wrappers set the module's weight and call its `forward`, past its hooks."""
        module = self.module
        shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
        return weight.shape == shape and (self.inside or weight is vars(module).get("weight"))

    @contextmanager
    def hooked(self) -> Iterator[_Watch]:
        """While the context is open, know whether the module runs."""
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
def _attributes_kept(network: nn.Module) -> Iterator[None]:
    """Afterwards each module has the attributes that it had, such as a weight that a hook has set."""
    before = [(module, dict(vars(module))) for module in network.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
