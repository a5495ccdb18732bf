"""Terms of targets: a class, a channel, a neuron, or what a whole layer gives, as one number per image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

from vizcnn.errors import TargetError
from vizcnn.models.functions import Activations, LayerFunction, OutputFunction
from vizcnn.models.head import Head, find_head, to_probabilities
from vizcnn.models.model import Model, find_class_index


@dataclass(frozen=True)
class Unit:
    """A class, or a channel of a layer, or one neuron of a channel.

    layer: dotted name; OUTPUT for the network's output.
    channel: index among the layer's channels, wherever these lie, or a class name until the model is known.
    at: (y, x) of one neuron in a map; None takes the mean over all positions, or over all tokens.
    probability: of the class, instead of the network's own output. head: what the output is; None: its values tell.
    label: the class's name. as_text: the channel was given as digits in a text, which may also be a class's name.
    ambiguous: the class's number is also the name of a class.
    """

    layer: str
    channel: int | str
    at: tuple[int, int] | None = None
    probability: bool = False
    head: Head | None = None
    label: str = ""
    as_text: bool = field(default=False, compare=False)
    ambiguous: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        place = f"@{self.at[0]},{self.at[1]}" if self.at else ""
        name = self.label or (f"{self.layer}:{self.channel}" if self.layer else str(self.channel)) + place
        return f"p({name})" if self.probability else name

    @property
    def spec(self) -> str:
        """The text that `target` makes into this unit: classes by number, as `#10` where 10 is also a class's name."""
        number = f"#{self.channel}" if self.ambiguous else ""
        return str(replace(self, label=number))

    @property
    def layers(self) -> frozenset[str]:
        return frozenset({self.layer})

    @property
    def quantity(self) -> str:
        if self.probability:
            return "probability"
        return f"activation of {self.layer}" if self.layer else "logit"

    def resolved(self, model: Model) -> Unit:
        if self.layer:
            model.layer(self.layer)
            return self
        index = self.index_among(model.labels, model.name)
        ambiguous = str(index) in (model.labels or ()) and model.class_name(index) != str(index)
        return replace(self, channel=index, label=model.class_name(index), as_text=False, ambiguous=ambiguous)

    def index_among(self, labels: Sequence[str] | None, model: str) -> int:
        """The class's position among these names. Raises TargetError, see `vizcnn.models.model.find_class_index`."""
        is_name = self.as_text or isinstance(self.channel, str)
        return find_class_index(str(self.channel), labels, model) if is_name else int(self.channel)

    def with_head(self, head: Head) -> Unit:
        return replace(self, head=head) if self.probability else self

    def __call__(self, activations: Activations) -> Tensor:
        values = self._checked(activations[self.layer])  # (N, C), (N, C, T) or (N, C, H, W)
        if self.probability:
            values = to_probabilities(values, self.head or find_head(values))
        one = values[:, int(self.channel)]  # (N,), (N, T) or (N, H, W)
        if self.at is not None:
            return one[:, self.at[0], self.at[1]]  # (N,)
        return one.flatten(1).mean(1) if one.dim() > 1 else one  # (N,)

    def _checked(self, values: Any) -> Tensor:
        where = f"layer {self.layer!r}" if self.layer else "the network's output"
        if not isinstance(values, Tensor) or values.dim() not in ((2, 3, 4) if self.layer else (2, 4)):
            if self.layer:
                raise TargetError(
                    f"{where} is {describe_activations(values)}. Choose another layer, or energy({self.layer})"
                )
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise TargetError(f"{where} is {got}, not (N, C) or (N, C, H, W). Give a function of it as the target")
        if not 0 <= int(self.channel) < values.shape[1]:
            raise TargetError(f"{where} has channels 0 to {values.shape[1] - 1}, got {self.channel}")
        if self.at is None:
            return values
        if values.dim() != 4:
            raise TargetError(f"{where} is {tuple(values.shape)} and has no positions, got @{self.at[0]},{self.at[1]}")
        if self.at[0] >= values.shape[2] or self.at[1] >= values.shape[3]:
            raise TargetError(
                f"{where} is {values.shape[2]} x {values.shape[3]}, got position {self.at[0]},{self.at[1]}"
            )
        return values


@dataclass(frozen=True)
class _OfLayer:
    """What the terms share that make a number of a whole layer. layer: dotted name."""

    layer: str

    @property
    def spec(self) -> str:
        return str(self)

    @property
    def layers(self) -> frozenset[str]:
        return frozenset({self.layer})

    def resolved(self, model: Model) -> Self:
        model.layer(self.layer)
        return self


@dataclass(frozen=True)
class Energy(_OfLayer):
    """The mean square of a whole layer's activations: what deep dream raises (Mordvintsev et al. 2015)."""

    quantity = "energy"

    def __str__(self) -> str:
        return f"energy({self.layer})"

    def __call__(self, activations: Activations) -> Tensor:
        values = activations[self.layer]
        if not isinstance(values, Tensor) or values.dim() < 2:
            raise TargetError(f"layer {self.layer!r} gives no tensor (N, ...), so it has no energy")
        return values.square().flatten(1).mean(1)  # (N,)


@dataclass(frozen=True)
class Strongest(_OfLayer):
    """The unit of a layer that is most active in an image. Each image chooses its own."""

    def __str__(self) -> str:
        return f"strongest({self.layer})"

    @property
    def quantity(self) -> str:
        return f"activation of {self.layer}"

    def choose(self, activations: Activations) -> list[Unit]:
        """For each image the unit."""
        places = self._read_maps(activations).flatten(1).argmax(1).tolist()
        _, height, width = activations[self.layer].shape[1:]
        by_channel = (divmod(place, height * width) for place in places)
        return [Unit(self.layer, channel, divmod(rest, width)) for channel, rest in by_channel]

    def __call__(self, activations: Activations) -> Tensor:
        return self._read_maps(activations).flatten(1).amax(1)  # (N,)

    def _read_maps(self, activations: Activations) -> Tensor:
        values = activations[self.layer]  # (N, C, H, W)
        if not isinstance(values, Tensor) or values.dim() != 4:
            raise TargetError(
                f"layer {self.layer!r} is {describe_activations(values)}, and only maps (N, C, H, W) have units at "
                "positions. Choose another layer"
            )
        return values


@dataclass(frozen=True)
class Direction(_OfLayer):
    """A layer's activations, averaged over positions, along a direction: their scalar product with a vector.

    vector: one weight per channel of the layer.
    """

    vector: tuple[float, ...]

    def __str__(self) -> str:
        digest = hashlib.sha256(repr(self.vector).encode()).hexdigest()[:8]
        return f"direction({self.layer}, {digest})"

    @property
    def spec(self) -> str:
        return f"direction({self.layer}, {list(self.vector)})"

    @property
    def quantity(self) -> str:
        return f"activation along a direction of {self.layer}"

    def __call__(self, activations: Activations) -> Tensor:
        values = activations[self.layer]
        if not isinstance(values, Tensor) or values.dim() not in (2, 3, 4) or values.shape[1] != len(self.vector):
            raise TargetError(
                f"layer {self.layer!r} is {describe_activations(values)}, a direction of {len(self.vector)} numbers "
                "does not fit"
            )
        per_channel = values.flatten(2).mean(2) if values.dim() > 2 else values  # (N, C)
        return per_channel @ values.new_tensor(self.vector)  # (N,)


Term = Unit | Energy | Strongest | Direction | OutputFunction | LayerFunction


def describe_activations(values: Any) -> str:
    """A layer's activations in words, for messages: their shape, and why they are no maps."""
    if not isinstance(values, Tensor):
        return type(values).__name__
    if values.dim() > 4:  # see `vizcnn.models.layers.axes`
        shape = (values.shape[0], *values.shape[4:])
        like = "as in attention weights, or where parts of an image make up the batch"
        return f"{shape}, in which no axes are known to be channels, rows and columns ({like})"
    tokens = ", channels and tokens without rows and columns" if values.dim() == 3 else ""
    return f"{tuple(values.shape)}{tokens}"
