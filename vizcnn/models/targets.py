"""Targets: what to explain, one number per image, computed from the network's output or from layers' activations."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import index
from typing import Any

from torch import Tensor

from vizcnn.errors import TargetError
from vizcnn.geometry import Box
from vizcnn.models.detection import BestBox, FoundBox, is_detections
from vizcnn.models.functions import OUTPUT as OUTPUT
from vizcnn.models.functions import RAW as RAW
from vizcnn.models.functions import (
    Activations,
    LayerFunction,
    OutputFunction,
    find_layer_names,
    make_layer_function,
)
from vizcnn.models.functions import pick_layers as pick_layers
from vizcnn.models.head import Head
from vizcnn.models.model import Model
from vizcnn.models.segmentation import Rectangle
from vizcnn.models.terms import Direction, Energy, Strongest, Unit

Term = Unit | Energy | Strongest | Direction | OutputFunction | LayerFunction | BestBox | FoundBox

_N = "[0-9]{1,18}"
_LAYER_UNIT = re.compile(rf"(?P<layer>[^:]+):(?P<channel>{_N})")
_PLACED = re.compile(rf"(?P<what>.+)@(?P<y>{_N})(-(?P<y1>{_N}))?,(?P<x>{_N})(-(?P<x1>{_N}))?")
_BOX = re.compile(rf"(?P<what>.+)#(?P<rank>{_N})")
_SPAN = re.compile(rf"(?P<layer>[^:]+):(?P<first>{_N})-(?P<last>{_N})")
_NUMBER = re.compile(rf"#-?{_N}|-?(0|[1-9][0-9]{{0,17}})")  # `02` may be a name, but is no number of a class
_ENERGY = re.compile(r"energy\((?P<layer>.+)\)")
_STRONGEST = re.compile(r"strongest\((?P<layer>.+)\)")
_PROBABILITY = re.compile(r"p\((?P<inner>.+)\)")


@dataclass(frozen=True)
class Target:
    """A weighted sum of units. Targets add, subtract and scale: `target("cat") - 0.5 * target("dog")`."""

    terms: tuple[tuple[float, Term], ...]

    def __str__(self) -> str:
        return self._sum(str)

    @property
    def spec(self) -> str:
        """The text from which `target` makes each term again, with classes as numbers."""
        return self._sum(lambda unit: unit.spec)

    def _sum(self, name: Callable[[Term], str]) -> str:
        parts = [
            (("- " if w < 0 else "+ ") + (f"{abs(w):g} * " if abs(w) != 1 else "") + name(u)) for w, u in self.terms
        ]
        return " ".join(parts).removeprefix("+ ")

    def __add__(self, other: Target) -> Target:
        return Target(self.terms + other.terms)

    def __mul__(self, factor: float) -> Target:
        return Target(tuple((weight * factor, unit) for weight, unit in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Target:
        return self * -1

    def __sub__(self, other: Target) -> Target:
        return self + -other

    @property
    def layers(self) -> frozenset[str]:
        """The layers whose activations the target needs; OUTPUT and RAW stand for what the network itself gives."""
        return frozenset().union(*(unit.layers for _, unit in self.terms))

    @property
    def quantity(self) -> str:
        """The name of the number on an axis; a sum of different quantities is a `score`."""
        kinds = {unit.quantity for _, unit in self.terms}
        return kinds.pop() if len(kinds) == 1 else "score"

    def resolved(self, model: Model) -> Target:
        """The same target with class names turned into indices and layer names checked.

        Raises TargetError and LayerNotFound."""
        return Target(tuple((weight, unit.resolved(model)) for weight, unit in self.terms))

    def with_head(self, head: Head) -> Target:
        """The same target, knowing what the network's outputs are."""
        terms = ((weight, unit.with_head(head) if isinstance(unit, Unit) else unit) for weight, unit in self.terms)
        return Target(tuple(terms))

    def differs_by_image(self, *, has_maps: bool) -> bool:
        """Whether `choose` gives each image a target of its own. has_maps: the network's output is (N, K, H, W)."""
        return any(
            isinstance(unit, Strongest | BestBox) or (has_maps and isinstance(unit, Unit) and unit.is_of_image)
            for _, unit in self.terms
        )

    def choose(
        self,
        activations: Activations,
        images: int,
        head: Head | None = None,
        name_class: Callable[[int], str] = str,
    ) -> list[Target]:
        """For each of so many images the target that this one stands for: the same, but for units, areas and boxes that
        each image chooses for itself.

        activations: of the images as they are. head: what the output is. name_class: from a class's number to its name,
        for messages. Raises NotInImage for the first image that holds no such thing, and TargetError."""
        self._refuse_class_of_boxes(activations)
        if not self.differs_by_image(has_maps=is_map(activations.get(OUTPUT))):
            return [self] * images

        def choose_own(unit: Term) -> Sequence[Term]:
            if isinstance(unit, Unit):
                return unit.choose(activations, images, head, name_class)
            if isinstance(unit, BestBox):
                return unit.choose(activations, images, name_class)
            return unit.choose(activations) if isinstance(unit, Strongest) else [unit] * images

        units = [choose_own(unit) for _, unit in self.terms]
        weights = [weight for weight, _ in self.terms]
        return [Target(tuple(zip(weights, own, strict=True))) for own in zip(*units, strict=True)]

    def _refuse_class_of_boxes(self, activations: Activations) -> None:
        """Raise TargetError for a class of a network that finds boxes, which are its answers."""
        for _, unit in self.terms:
            if isinstance(unit, Unit) and not unit.layer and is_detections(activations.get(RAW)):
                name = replace(unit, probability=False, at=None, over=None)
                raise TargetError(f"{unit} is a class, and the network returns boxes. Give {name}#0 for its best box")

    @property
    def no_gradient(self) -> str:
        """Why no gradient reaches what the target is computed from; "" where one may."""
        return next((unit.no_gradient for _, unit in self.terms if isinstance(unit, FoundBox)), "")

    @property
    def box(self) -> Box | None:
        """The box that the target is about, in px of the input, where it is one that a detector found."""
        ((_, unit), *others) = self.terms
        return unit.box if isinstance(unit, FoundBox) and not others else None

    @property
    def where(self) -> str:
        """Over which part of the image the target is a mean, to go on a sentence; "" for the usual, all of it."""
        ((_, unit), *others) = self.terms
        return unit.over.where if isinstance(unit, Unit) and unit.over and not others else ""

    def __call__(self, activations: Activations) -> Tensor:
        """One number per image, (N,), from the activations of `layers`."""
        total = sum(weight * unit(activations) for weight, unit in self.terms)
        assert isinstance(total, Tensor)
        return total


def target(what: Any, *, layers: str | Collection[str] | None = None) -> Target:
    """Make a target, which is what to explain: one number per image, from a description or from your own function.

    what: a class index or name, `layer:channel`, `layer:channel@y,x`, or a function of the network's output.
        `p(tabby)` asks for the probability; otherwise a class is the network's own number, mostly a logit.
        `energy(layer)` is a whole layer's mean square, `strongest(layer)` the unit of the layer that is most active in
        the image. Where classes are named by numbers, `#10` is the class of that index and `=10` the one of that name;
        `=name` also names a class with an @ or a # in its name. Names are looked up when the target meets a model.
        Of a segmentation, (N, K, H, W), `dog` is the mean over the pixels that are predicted so in the image as it is,
        `dog@y,x` one pixel and `dog@y0-y1,x0-x1` a region, first and last rows and columns included; these are counted
        in the output. The pixels do not move with what is done to the image. Of a detector, `dog#0` is the best box of
        the class in the image as it is, `dog#1` the second: for an altered image, the largest product of overlap and
        confidence over its boxes of the class. No gradient reaches boxes; occlusion and rise explain them.
    layers: names of layers; `what` is then a function of their activations, a mapping from these names to tensors
        (N, C, H, W), (N, C, T) for tokens or (N, C), to a tensor (N,). An empty name is what the network returns.
        A callable object with an attribute `layers` that names them is such a function by itself.

    Works wherever a target does; maps and pictures need a function that torch can differentiate, occlusion any.
    Raises TargetError, and LayerNotFound when the target meets a model that has no such layer.

        >>> import vizcnn
        >>> def contrast(activations):  # how uneven layer2 is over positions
        ...     return activations["layer2"].flatten(2).std(2).mean(1)  # (N,)
        >>> target = vizcnn.target(contrast, layers=["layer2"])
        >>> result = vizcnn.Saliency()(vizcnn.load("tiny"), "sample:grace_hopper", target=target)
        >>> rather = vizcnn.target("military uniform") - vizcnn.target("academic gown")
    """
    if layers is not None:
        if isinstance(what, str | Target) or not callable(what):
            raise TargetError(f"with layers, a target is a function of their activations, got {what!r}")
        return Target(((1.0, make_layer_function(what, layers)),))
    if isinstance(what, Target):
        return what
    if hasattr(what, "dtype") and not (isinstance(what, str) or callable(what)):
        what = _read_number(what)
    if hasattr(what, "__index__") and not isinstance(what, bool):
        return Target(((1.0, _make_class_unit(index(what))),))
    if isinstance(what, bool) or not (isinstance(what, str) or callable(what)):
        raise TargetError(f"a target is a class, 'layer:channel' or a function of the output, got {what!r}")
    if isinstance(what, str):
        return Target(((1.0, _parse(what.strip())),))
    own = find_layer_names(what)
    return Target(((1.0, make_layer_function(what, own) if own else OutputFunction(what)),))


def _read_number(array: Any) -> Any:
    """The one whole number that an array or tensor holds. Raises TargetError where it holds anything else."""
    if "int" in str(array.dtype) and prod(array.shape) == 1:
        return array.item()
    raise TargetError(
        f"a target is one class, and an array is one where it holds one whole number, got {type(array).__name__} "
        f"{tuple(array.shape)} of {array.dtype}. For several targets give a list, such as ARRAY.tolist()"
    )


def direction(layer: str, vector: Iterable[float]) -> Target:
    """Make a target: a layer's activations, averaged over positions, times a vector of one weight per channel.

    >>> import vizcnn
    >>> brighter = vizcnn.direction("conv1", [1.0] * 16 + [-1.0] * 16)
    >>> result = vizcnn.Saliency()(vizcnn.load("tiny"), "sample:grace_hopper", target=brighter)
    """
    return Target(((1.0, Direction(layer, tuple(map(float, vector)))),))


def expand_target(what: Any) -> tuple[Target, ...]:
    """The targets that one description stands for: `layer2:0-15` is sixteen channels, everything else one target."""
    span = _SPAN.fullmatch(what.strip()) if isinstance(what, str) else None
    if span is None:
        return (target(what),)
    first, last = int(span["first"]), int(span["last"])
    if last < first:
        raise TargetError(f"a span of channels goes from the lower to the higher, got {what!r}")
    return tuple(Target(((1.0, Unit(span["layer"], channel)),)) for channel in range(first, last + 1))


def parse_targets(what: Any) -> tuple[Target, ...]:
    """The targets that a description or a list of descriptions stands for. Raises TargetError for an empty list."""
    several = what if isinstance(what, list | tuple) else [what]
    if not several:
        raise TargetError("the list of targets is empty. Leave it out to explain the predicted class")
    return tuple(one for each in several for one in expand_target(each))


def is_map(output: Any) -> bool:
    """Whether a network's output is a map for each class, (N, K, H, W)."""
    return isinstance(output, Tensor) and output.dim() == 4


def _make_class_unit(number: int) -> Unit:
    if number < 0:
        raise TargetError(f"a class index is 0 or more, got {number}")
    return Unit(OUTPUT, number)


def _parse(text: str) -> Unit | Energy | Strongest | BestBox:
    if match := _ENERGY.fullmatch(text):
        return Energy(match["layer"])
    if match := _STRONGEST.fullmatch(text):
        return Strongest(match["layer"])
    if match := _PROBABILITY.fullmatch(text):
        inner = _parse(match["inner"])
        if isinstance(inner, BestBox):
            raise TargetError(f"p(...) is for classes, and the score of a box is from 0 to 1 already: give {inner}")
        if not isinstance(inner, Unit) or inner.layer:
            raise TargetError(f"p(...) is for classes, got the layer unit {text!r}")
        return replace(inner, probability=True)
    if match := _PLACED.fullmatch(text):
        unit = _parse_channel(match["what"])
        at, over = _read_place(text, match)
        return replace(unit, at=at, over=over, written="" if unit.layer else _keep_name(text, unit))
    if match := _BOX.fullmatch(text):
        unit = _parse_channel(match["what"])
        if not unit.layer:
            return BestBox(unit, int(match["rank"]), _keep_name(text, unit))
    return _parse_channel(text)


def _parse_channel(text: str) -> Unit:
    """A class, or a channel of a layer, without a place."""
    if match := _LAYER_UNIT.fullmatch(text):
        return Unit(match["layer"], int(match["channel"]))
    if _NUMBER.fullmatch(text):
        return replace(_make_class_unit(int(text.removeprefix("#"))), as_text=text[0] != "#")
    return Unit(OUTPUT, text)


def _read_place(text: str, match: re.Match[str]) -> tuple[tuple[int, int] | None, Rectangle | None]:
    """The position, or the rectangle, that `@y,x` or `@y0-y1,x0-x1` stands for. Raises TargetError."""
    y, x = int(match["y"]), int(match["x"])
    if not (match["y1"] or match["x1"]):
        return (y, x), None
    bottom, right = int(match["y1"] or y), int(match["x1"] or x)
    if bottom < y or right < x:
        raise TargetError(
            f"a region is @Y0-Y1,X0-X1 from the lower to the higher, first and last included, got {text!r}"
        )
    return None, Rectangle((y, bottom), (x, right))


def _keep_name(text: str, unit: Unit) -> str:
    """The text, where it could be the name of a class: not behind the number of one, as in `#3@1,2`."""
    return text if unit.as_text or isinstance(unit.channel, str) else ""
