"""Axes: where a layer's output has its images, channels, rows and columns.

Most layers give maps (N, C, H, W), but not all do: inside ConvNeXt and Swin maps lie channels last, a transformer's
tokens have one axis for rows and columns together, attention weights have two of each. One dry run tells for all
layers from where in the image every element comes, and so which axis is which (see `coordinates`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vizcnn.models.layers.coordinates import Coordinates, Follower, spread
from vizcnn.models.layers.dryrun import following, twin, twin_or_itself
from vizcnn.models.model import Model

_CROSSED = 0.02  # share of its change by which a row may change along the columns of a map
_WITHIN = 0.5  # the same along channels: those of a patch laid out as channels lie beside each other


@dataclass(frozen=True)
class Axes:
    """How an output is brought to its usual form, and which form that is.

    order: the output's axes in the order of the usual form, images first.
    places: how many axes of places follow the channels: 2 in maps (N, C, H, W), 1 in tokens (N, C, T), 0 in (N, C);
        None where no axis is known to be channels. The form is then (N, 1, 1, 1, ...), which nobody takes for a map.
    """

    order: tuple[int, ...]
    places: int | None

    def applied(self, output: Tensor) -> Tensor:
        """The output in its usual form, in the same memory."""
        values = output if self._is_usual else output.permute(self.order)
        return values[:, None, None, None] if self.places is None else values

    def undone(self, values: Tensor) -> Tensor:
        """What `applied` made, as the network laid it."""
        values = values[:, 0, 0, 0] if self.places is None else values
        return values if self._is_usual else values.permute(torch.tensor(self.order).argsort().tolist())

    @property
    def _is_usual(self) -> bool:
        return self.order == tuple(range(len(self.order)))


@dataclass(frozen=True)
class Layer:
    """A layer's axes, and the shape of its output as the network lays it."""

    axes: Axes
    shape: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Of a map its height and width, of tokens their number."""
        return tuple(self.shape[d] for d in self.axes.order[2:]) if self.axes.places else ()


_REMEMBERED: WeakKeyDictionary[Model, dict[tuple[int, ...], dict[str, Layer]]] = WeakKeyDictionary()


@contextmanager
def remembering(model: Model) -> Iterator[None]:
    """While the context is open, and the network thus stays as it is, its layers are found out only once."""
    before = _REMEMBERED.get(model)
    _REMEMBERED[model] = {} if before is None else before
    try:
        yield
    finally:
        if before is None:
            del _REMEMBERED[model]


def layers_of(model: Model, images: Tensor) -> dict[str, Layer]:
    """Every layer that gives a tensor for images (N, C, H, W) in [0, 1], by dotted name, in the order of the last runs.

    A network that looks at numbers while it runs is followed as far as the first image takes it."""
    known, size = _REMEMBERED.get(model, {}), tuple(images.shape[2:])
    if size not in known:
        known[size] = _found(model, images)
    return known[size]


def layer_axes(model: Model, images: Tensor, names: Collection[str]) -> dict[str, Axes]:
    """The axes of those of these layers that run for images (N, C, H, W) in [0, 1]."""
    if not names:
        return {}
    layers = layers_of(model, images)
    if any(name not in layers for name in names):  # the image before took another way through the network
        layers |= {name: layer for name, layer in _found(model, images, dry=False).items() if name not in layers}
    return {name: layers[name].axes for name in names if name in layers}


def spatial_layers(model: Model, images: Tensor) -> dict[str, tuple[int, int]]:
    """The layers that give maps of more than one position for images (N, C, H, W) in [0, 1], with height and width of
    the maps, in the order of the last runs."""
    maps = {name: layer.size for name, layer in layers_of(model, images).items() if layer.axes.places == 2}
    return {name: (h, w) for name, (h, w) in maps.items() if h * w > 1}


def usual(output: Tensor, axes: Axes | None) -> Tensor:
    """A layer's output in its usual form."""
    return _fitting(output, axes).applied(output)


def laid_back(values: Tensor, like: Tensor, axes: Axes | None) -> Tensor:
    """What `usual` made of an output, laid as that output is."""
    return _fitting(like, axes).undone(values)


def _fitting(output: Tensor, axes: Axes | None) -> Axes:
    """The axes, unless nothing is known of them, as of a layer that did not run when they were found out."""
    fit = axes is not None and len(axes.order) == output.dim()
    return axes if axes and fit else Axes(tuple(range(output.dim())), 0 if output.dim() < 3 else None)


def _found(model: Model, images: Tensor, *, dry: bool = True) -> dict[str, Layer]:
    """What the first run that comes to its end sees; or else the one that comes furthest: why it stops is said when the
    network runs in earnest. Each run is closer to the real one than those before, and on a copy of its own, since
    networks keep things from one to the next."""
    one, best, count = images[:1].detach(), _Seen(), 1
    without_numbers = [torch.empty(n, *one.shape[1:], dtype=one.dtype, device="meta") for n in (2, 1)]
    batches = [*without_numbers, one]  # of two images the axis shows; some networks take only one at a time
    for batch in batches if dry else [one]:
        seen = _Seen()
        ended = _runs(model, batch, seen)
        if ended or len(seen) > len(best):
            best, count = seen, len(batch)
        if ended:
            break
    return {name: Layer(_axes(*each, count), each[0]) for name, each in best.items()}


_Seen = dict[str, tuple[tuple[int, ...], Coordinates]]
"""By layer the shape of its output, and where that comes from."""


def _runs(model: Model, images: Tensor, seen: _Seen) -> bool:
    """Whether the network comes to its end. What each layer gives is put into `seen` on the way."""
    follower = Follower(images)

    def see(name: str, output: Any) -> None:
        seen.pop(name, None)  # a module that runs again moves to its last place
        if isinstance(output, Tensor):
            seen[name] = (tuple(output.shape), follower.coordinates(output))

    try:
        copy = twin(model) if images.is_meta else twin_or_itself(model)
        with following(copy, see, follower):
            copy(images)
    except Exception:  # whatever stops a run without numbers; errors of the network itself come again
        return False
    return True


def _axes(shape: Sequence[int], coordinates: Coordinates, images: int) -> Axes:
    """The axes of an output of this shape whose elements come from there, in a run of so many images."""
    spreads = [spread(each) for each in coordinates]
    image, row, column = (each.index(max(each)) if each else None for each in spreads)
    first = image or 0
    rest = [d for d in range(len(shape)) if d != first]
    if len(shape) < 3:
        return Axes((first, *rest)[: len(shape)], 0)
    if shape[first] == images and first not in (row, column) and _are_apart(spreads, {first, row, column}):
        places = _places(shape, rest, row, column)
        channels = [d for d in rest if d not in places]
        if places and len(channels) == 1:
            return Axes((first, *channels, *places), len(places))
    return Axes((first, *rest), None)


def _are_apart(spreads: Sequence[Sequence[float]], taken: Collection[int | None]) -> bool:
    """Whether each coordinate changes along an axis of its own, not as in attention weights or tokens of windows."""
    others = ((d, change) for s in spreads for d, change in enumerate(s) if d != s.index(max(s)))
    return all(change < (_CROSSED if d in taken else _WITHIN) for d, change in others)


def _places(shape: Sequence[int], rest: Sequence[int], row: int | None, column: int | None) -> list[int]:
    """The axes of rows and columns, or the one of tokens; nothing where they are not known.

    Along an axis of length 1 nothing changes: where one is missed, it is the last of those. A row that padding has made
    to a map changes nowhere: rows come directly before columns then, as they usually do."""
    ones = [d for d in rest if shape[d] == 1 and d not in (row, column)]
    if len(rest) == 2:
        return [d for d in rest if d in (row, column)] or ones[-1:]
    if column is None and ones:
        column = ones.pop()
    if row is None and ones:
        row = ones.pop()
    if column is None and row is not None:
        column = row + 1
    if row is None and column is not None:
        row = column - 1
    return sorted({d for d in rest if d in (row, column)}, key=lambda d: d != row)
