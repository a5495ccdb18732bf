"""Terms of targets: a class, a channel, a neuron, or what a whole layer gives, as one number per image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

from vizcnn.errors import TargetError
from vizcnn.models.functions import Activations
from vizcnn.models.head import Head, find_head, to_probabilities
from vizcnn.models.model import Model, find_class_index
from vizcnn.models.outputs import Unsettled
from vizcnn.models.precision import widen
from vizcnn.models.segmentation import Area, Rectangle, choose_areas, find_predicted
from vizcnn.models.two_classes import find_side, negate, tells_two_apart


@dataclass(frozen=True)
class Unit:
    """A class, or a channel of a layer, or one neuron of a channel.

    layer: dotted name; OUTPUT for the network's output.
    channel: index among the layer's channels, wherever these lie, or a class name until the model is known.
    at: (y, x) of one neuron in a map. over: the area of a map that is averaged. Without either, the mean over all
        positions, or over all tokens; a class of a segmentation gets an area of its own in each image, see `choose`.
    probability: of the class, instead of the network's own output. head: what the output is; None: its values tell.
    label: the class's name. as_text: the channel was given as digits in a text, which may also be a class's name.
    ambiguous: the class's number is also the name of a class. written: the text that named class and place together,
        which as a whole may be the name of a class.
    negated: the first of two classes that one output tells apart, see `vizcnn.models.two_classes`.
    """

    layer: str
    channel: int | str
    at: tuple[int, int] | None = None
    probability: bool = False
    head: Head | None = None
    label: str = ""
    as_text: bool = field(default=False, compare=False)
    ambiguous: bool = field(default=False, compare=False)
    over: Area | None = None
    written: str = field(default="", compare=False)
    negated: bool = False

    def __str__(self) -> str:
        name = self.label or (f"{self.layer}:{self.channel}" if self.layer else str(self.channel))
        return f"p({name}{self._place})" if self.probability else f"{name}{self._place}"

    @property
    def has_place(self) -> bool:
        """Whether it is one neuron or an area, rather than all positions."""
        return self.at is not None or self.over is not None

    @property
    def _place(self) -> str:
        """The place, as it follows the class or channel in a text."""
        return f"@{self.at[0]},{self.at[1]}" if self.at else str(self.over or "")

    @property
    def spec(self) -> str:
        """The text that `target` makes into this unit: classes by number, as `#10` where 10 is also a class's name."""
        number = f"={self.label}" if self.negated else f"#{self.channel}" if self.ambiguous else ""
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
        if is_whole_name(self.written, self, model):
            return Unit(self.layer, self.written, probability=self.probability).resolved(model)
        if tells_two_apart(model):
            side, labels = find_side(self.channel, model, as_text=self.as_text), model.labels or ()
            return replace(
                self,
                channel=0,
                label=labels[side],
                as_text=False,
                ambiguous="0" in labels,
                negated=side == 0,
                written="",
            )
        index = self.index_among(model.labels, model.name)
        label, names = model.class_name(index), model.labels or ()
        of_another = str(index) in names and label != str(index)
        ambiguous = of_another or (self.has_place and f"{index}{self._place}" in names)
        return replace(self, channel=index, label=label, as_text=False, ambiguous=ambiguous, written="")

    def index_among(self, labels: Sequence[str] | None, model: str) -> int:
        """The class's position among these names. Raises TargetError, see `vizcnn.models.model.find_class_index`."""
        is_name = self.as_text or isinstance(self.channel, str)
        return find_class_index(str(self.channel), labels, model) if is_name else int(self.channel)

    def with_head(self, head: Head) -> Unit:
        return replace(self, head=head) if self.probability or self.negated else self

    @property
    def is_of_image(self) -> bool:
        """Whether it is a class as such, of which a segmentation of an image tells the place."""
        return not self.layer and self.at is None and not isinstance(self.over, Rectangle)

    def choose(
        self, activations: Activations, images: int, head: Head | None, name_class: Callable[[int], str]
    ) -> list[Unit]:
        """For each image the class over the pixels that are predicted so, where the output is a map for each class.

        Raises NotInImage for the first image in which no pixel is."""
        maps = activations[self.layer]
        if not (self.is_of_image and isinstance(maps, Tensor) and maps.dim() == 4):
            return [self] * images
        name = str(replace(self, probability=False))
        masks = find_predicted(self._checked(maps).detach(), int(self.channel), head)  # (N, H, W)
        areas = choose_areas(maps, ~masks if self.negated else masks, head, name, name_class)
        return [replace(self, over=area) for area in areas]

    def __call__(self, activations: Activations) -> Tensor:
        values = self._checked(activations[self.layer])  # (N, C), (N, C, T) or (N, C, H, W)
        if self.over is not None:
            values = self.over.pick(values)  # (N, C, n)
        head = self.head or find_head(values) if self.probability or self.negated else None
        if self.probability and head:
            values = to_probabilities(widen(values), head)
        one = values[:, int(self.channel)]  # (N,), (N, T) or (N, H, W)
        if self.negated:
            one = negate(one, head, probability=self.probability)
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
            if isinstance(values, Unsettled):
                raise TargetError(values.reason)
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise TargetError(f"{where} is {got}, not (N, C) or (N, C, H, W). Give a function of it as the target")
        if not 0 <= int(self.channel) < values.shape[1]:
            raise TargetError(f"{where} has channels 0 to {values.shape[1] - 1}, got {self.channel}")
        if not self.has_place:
            return values
        if values.dim() != 4:
            raise TargetError(f"{where} is {tuple(values.shape)} and has no positions, got {self._place or self}")
        if self.at and (self.at[0] >= values.shape[2] or self.at[1] >= values.shape[3]):
            raise TargetError(
                f"{where} is {values.shape[2]} x {values.shape[3]}, got position {self.at[0]},{self.at[1]}"
            )
        return values


def is_whole_name(written: str, unit: Unit, model: Model) -> bool:
    """Whether a text such as `dog@3,4` or `dog#0` is the name of a class, not a place or a box of the class before it.

    written: the text; "" where it cannot be a name. unit: of the class before the place. Raises TargetError where it
    can be both."""
    known = {label.lower() for label in model.labels or ()} if written else set()
    if written.removeprefix("=").lower() not in known:
        return False
    if written.startswith("="):
        return True
    try:
        index = unit.index_among(model.labels, model.name)
    except TargetError:
        return True
    rest = written.removeprefix(str(unit.channel))
    raise TargetError(
        f"{written!r} is the name of a class of {model.name}, and {rest!r} of class {model.class_name(index)!r}. Give "
        f"'={written}' for the class of this name, or '#{index}{rest}' for the other"
    )


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
        return widen(values).square().flatten(1).mean(1)  # (N,)


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
