"""Axes: which axes of a layer's output are its images, channels, rows and columns.

Most layers give maps (N, C, H, W), but not all do: in ConvNeXt and Swin the channels come last, a transformer's tokens
have one axis for rows and columns together, attention weights have two of each. A dry run follows from where in the
image every element comes, which tells the axes of all layers at once (see `coordinates`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vizcnn.models.layers.coordinates import Coordinates, Follower, measure_spread
from vizcnn.models.layers.dryrun import copy_for_dry_run, follow_run, keep_last, try_copy_for_dry_run
from vizcnn.models.model import Model
from vizcnn.models.remembering import keep, recall

_CROSSED = 0.02  # the share of its change by which a row coordinate may change along the columns of a map
_WITHIN = 0.5  # the same along channels, which may hold the pixels of a patch


@dataclass(frozen=True)
class Axes:
    """A layer's axes, by which its output is brought to the usual form and back.

    order: the output's axes in the order of the usual form, images first.
    places: the number of axes after the channels: 2 in maps (N, C, H, W), 1 in tokens (N, C, T), 0 in (N, C); None
        where no axis is known to be channels. The form is then (N, 1, 1, 1, ...), which nobody takes for a map.
    """

    order: tuple[int, ...]
    places: int | None

    def apply(self, output: Tensor) -> Tensor:
        """An output in its usual form, as a view."""
        values = output.permute(self.order) if self.is_moved else output
        return values[:, None, None, None] if self.places is None else values

    def undo(self, values: Tensor) -> Tensor:
        """Values in the usual form, with their axes as the network has them, as a view."""
        values = values[:, 0, 0, 0] if self.places is None else values
        return values.permute(torch.tensor(self.order).argsort().tolist()) if self.is_moved else values

    @property
    def is_moved(self) -> bool:
        """Whether the network has its axes in another order than the usual form."""
        return self.order != tuple(range(len(self.order)))


@dataclass(frozen=True)
class Layer:
    """A layer's axes, and the shape of its output with the axes as the network has them."""

    axes: Axes
    shape: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of a map, the number of tokens, or nothing."""
        return tuple(self.shape[d] for d in self.axes.order[2:]) if self.axes.places else ()


_REMEMBERED: WeakKeyDictionary[Model, dict[tuple[int, ...], dict[str, Layer]]] = WeakKeyDictionary()


@contextmanager
def remember_layers(model: Model) -> Iterator[None]:
    """While the context is open, a model's layers are found only once per size; it must not change meanwhile."""
    before = _REMEMBERED.get(model)
    _REMEMBERED[model] = {} if before is None else before
    try:
        yield
    finally:
        if before is None:
            del _REMEMBERED[model]


def find_layers(model: Model, images: Tensor) -> dict[str, Layer]:
    """Every layer that gives a tensor for images (N, C, H, W) in [0, 1], by dotted name, in the order of last runs.

    In a network that looks at values while it runs, these are the layers that the first image passes."""
    known, size = _REMEMBERED.get(model, {}), tuple(images.shape[2:])
    if size not in known:
        before = recall(model, ("layers", size))
        known[size] = _find_by_runs(model, images) if before is None else {**before}
    return known[size]


def find_axes(model: Model, images: Tensor, names: Collection[str]) -> dict[str, Axes]:
    """The axes of these layers for images (N, C, H, W) in [0, 1], without those that do not run."""
    if not names:
        return {}
    layers = find_layers(model, images)
    if any(name not in layers for name in names):  # the image before took another way through the network
        layers |= {name: layer for name, layer in _find_by_runs(model, images, dry=False).items() if name not in layers}
    return {name: layers[name].axes for name in names if name in layers}


def find_spatial_layers(model: Model, images: Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of the maps of every layer that gives maps of more than one position, in the order of last runs.

    images: (N, C, H, W) in [0, 1]."""
    maps = {name: layer.size for name, layer in find_layers(model, images).items() if layer.axes.places == 2}
    return {name: (h, w) for name, (h, w) in maps.items() if h * w > 1}


def pick_last_of_sizes(layers: Mapping[str, tuple[int, int]], most: int) -> list[str]:
    """Of each size of map the last of these layers that gives it; of many sizes some, evenly from first to last.

    layers: height and width of the maps by name, in the order of last runs, as `find_spatial_layers` gives them."""
    last: dict[tuple[int, int], str] = {}
    for name, size in layers.items():
        last.pop(size, None)  # otherwise the size would keep the place of its first layer
        last[size] = name
    names, count = [*last.values()], min(len(last), most)
    return [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]


def to_usual_form(output: Tensor, axes: Axes | None) -> Tensor:
    """A layer's output in its usual form: (N, C, H, W), (N, C, T) or (N, C)."""
    return _choose_axes(output, axes).apply(output)


def to_network_form(values: Tensor, like: Tensor, axes: Axes | None) -> Tensor:
    """Values in the usual form, with their axes in the order that the layer's output `like` has."""
    return _choose_axes(like, axes).undo(values)


def _choose_axes(output: Tensor, axes: Axes | None) -> Axes:
    """The axes if they fit the output, else its own order, as for a layer that did not run in the dry run."""
    fit = axes is not None and len(axes.order) == output.dim()
    return axes if axes and fit else Axes(tuple(range(output.dim())), 0 if output.dim() < 3 else None)


def _find_by_runs(model: Model, images: Tensor, *, dry: bool = True) -> dict[str, Layer]:
    """The layers as seen in the first dry run that reaches the network's end, or else in the one that gets furthest.

    Each try is closer to a real run than the one before: two images without values, one without, one with. Each has a
    copy of the network, since networks keep things from run to run. Why a run stops is said by the real one."""
    one, best, count = images[:1].detach(), _Seen(), 1
    without_values = [torch.empty(n, *one.shape[1:], dtype=one.dtype, device="meta") for n in (2, 1)]
    batches = [*without_values, one]  # of two images the axis shows; some networks take only one at a time
    for batch in batches if dry else [one]:
        seen = _Seen()
        ended = _run_to_end(model, batch, seen)
        if len(batch) == 2 and ended and not any(shape[:1] == (2,) for shape, _ in seen.values()):
            continue  # a network that looks at one image only, as one that says `x[0]`
        if ended or len(seen) > len(best):
            best, count = seen, len(batch)
        if ended:
            break
    found = {name: Layer(_infer_axes(*each, count), each[0]) for name, each in best.items()}
    if ended and batch.is_meta:  # then no value of the image decided
        keep(model, ("layers", tuple(images.shape[2:])), {**found})
    return found


_Seen = dict[str, tuple[tuple[int, ...], Coordinates]]
"""By layer name: the shape of its output, and its coordinates."""


def _run_to_end(model: Model, images: Tensor, seen: _Seen) -> bool:
    """Run the network and put what each layer gives into `seen`; False where it does not reach its end."""
    follower = Follower(images)

    def read(_name: str, output: Any) -> Iterator[tuple[tuple[int, ...], Coordinates]]:
        if isinstance(output, Tensor):
            yield tuple(output.shape), follower.find_coordinates(output)

    try:
        copy = copy_for_dry_run(model) if images.is_meta else try_copy_for_dry_run(model)
        with follow_run(copy, keep_last(seen, read), follower):
            copy(images)
    except Exception:  # whatever stops a run without values; errors of the network itself come again
        return False
    return True


def _infer_axes(shape: Sequence[int], coordinates: Coordinates, images: int) -> Axes:
    """The axes of an output, by its shape and the coordinates of its elements, in a run of so many images."""
    spreads = [measure_spread(each) for each in coordinates]
    image, row, column = (each.index(max(each)) if each else None for each in spreads)
    first = image or 0
    rest = [d for d in range(len(shape)) if d != first]
    if len(shape) < 3:
        return Axes((first, *rest)[: len(shape)], 0)
    if shape[first] == images and first not in (row, column) and _are_apart(spreads, {first, row, column}):
        places = _find_place_axes(shape, rest, row, column)
        channels = [d for d in rest if d not in places]
        if places and len(channels) == 1:
            return Axes((first, *channels, *places), len(places))
    return Axes((first, *rest), None)


def _are_apart(spreads: Sequence[Sequence[float]], taken: Collection[int | None]) -> bool:
    """Whether each coordinate changes along one axis alone: not so in attention weights and tokens of windows."""
    others = ((d, change) for s in spreads for d, change in enumerate(s) if d != s.index(max(s)))
    return all(change < (_CROSSED if d in taken else _WITHIN) for d, change in others)


def _find_place_axes(shape: Sequence[int], rest: list[int], row: int | None, column: int | None) -> list[int]:
    """The axes of rows and columns, or the one axis of tokens; none where they are not known.

    Along an axis of length 1 no coordinate changes, so a missing axis is taken to be the last one of length 1. Where
    padding has made a map of a single row, that row's axis has another length: then rows come directly before columns.
    Where neither is known, as in a single column that pooling has made two of, both are taken to come last."""
    ones = [d for d in rest if shape[d] == 1 and d not in (row, column)]
    if len(rest) == 2:
        return [d for d in rest if d in (row, column)] or ones[-1:]
    if row is None and column is None and len(ones) == 1:
        return rest[-2:] if ones[0] in rest[-2:] else []
    if column is None and ones:
        column = ones.pop()
    if row is None and ones:
        row = ones.pop()
    if column is None and row is not None:
        column = row + 1
    if row is None and column is not None:
        row = column - 1
    return sorted({d for d in rest if d in (row, column)}, key=lambda d: d != row)
