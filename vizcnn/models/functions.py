"""Functions as targets: a person's own, of the network's output or of layers' activations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vizcnn.errors import TargetError, did_you_mean
from vizcnn.models.model import Model

OUTPUT = ""
"""Stands for the network's own output where layers are named. The output comes as the network gives it; a layer's
activations come in their usual form, see `vizcnn.models.layers.axes`."""

Activations = Mapping[str, Any]
"""By layer name, or OUTPUT: what the layer, or the network, gives."""


@dataclass(frozen=True)
class OutputFunction:
    """A person's own function from the network's raw output to (N,)."""

    function: Callable[[Any], Tensor]
    layers = frozenset({OUTPUT})
    quantity = "score"

    def __str__(self) -> str:
        return getattr(self.function, "__name__", "function")

    @property
    def spec(self) -> str:
        return str(self)

    def resolved(self, model: Model) -> OutputFunction:  # noqa: ARG002 - same shape as Unit's
        return self

    def __call__(self, activations: Activations) -> Tensor:
        return _check_one_per_image(self, self.function(activations[OUTPUT]))


@dataclass(frozen=True)
class LayerFunction:
    """A person's own function from layers' activations, by the layers' names, to (N,)."""

    function: Callable[[Activations], Tensor]
    layers: frozenset[str]
    quantity = "score"

    def __str__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def spec(self) -> str:
        return str(self)

    def resolved(self, model: Model) -> LayerFunction:
        for name in sorted(self.layers - {OUTPUT}):
            model.layer(name)
        return self

    def __call__(self, activations: Activations) -> Tensor:
        named = _Named({name: activations[name] for name in self.layers})
        return _check_one_per_image(self, self.function(named))


def make_layer_function(function: Callable[[Activations], Tensor], layers: str | Collection[str]) -> LayerFunction:
    """The target that a function of these layers is. Raises TargetError where they are not names."""
    names = frozenset({layers} if isinstance(layers, str) else layers)
    if not names or not all(isinstance(name, str) for name in names):
        raise TargetError(f"layers are the names of those that the function needs, at least one, got {layers!r}")
    return LayerFunction(function, names)


class _Named(dict[str, Any]):
    """The activations of the layers that a function has named; asking for another is an error, also if it was read."""

    def __missing__(self, name: str) -> Any:
        raise TargetError(
            f"the target's function asks for layer {name!r}, and its layers are {', '.join(map(repr, sorted(self)))}."
            f"{did_you_mean(name, self)} Name all that it needs"
        )


def _check_one_per_image(function: OutputFunction | LayerFunction, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TargetError(f"target function {function} must return one number per image, a tensor (N,), got {got}")
    return value


def find_layer_names(function: Any) -> Collection[str]:
    """The layer names in a callable object's attribute `layers`.

    Empty for a plain function, and for a network, where `layers` may be modules or a count."""
    own = getattr(function, "layers", ())
    return own if isinstance(own, Collection) and all(isinstance(name, str) for name in own) else ()
