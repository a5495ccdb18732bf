"""A channel's best images in a scan, each with the part that the winning unit sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import ImageError, NonFiniteResult, TargetError
from vizcnn.geometry import Box
from vizcnn.inputs.datasets import Images
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.tensors import to_photo
from vizcnn.models.contract import InputContract
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target
from vizcnn.models.terms import Unit
from vizcnn.receptive import ReceptiveField, receptive_fields
from vizcnn.results import Mask, make_mask
from vizcnn.results.photos import reduce_photo
from vizcnn.scanning.layer_selection import OUTPUT_NAME
from vizcnn.scanning.observe import Finding
from vizcnn.scanning.tally import Tally

Maps = Mapping[tuple[str, int, int], npt.NDArray[np.float32]]
"""Activation maps, float32 (h, w), by layer, channel and number of the image in the data set."""


class AnyIndex(Protocol):
    """What can be asked of an index, whether it lies in a folder (`Index`) or in memory (`MemoryIndex`)."""

    @property
    def images(self) -> Images: ...

    @property
    def contract(self) -> InputContract: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def classes(self) -> Sequence[str] | None: ...

    @property
    def labels(self) -> Sequence[str | None]: ...

    @property
    def unreadable(self) -> Sequence[tuple[int, str]]: ...

    def tally(self, layer: str) -> Tally: ...

    def field(self, layer: str) -> ReceptiveField | None: ...


class MemoryIndex:
    """An index in memory: what was found in all images of a data set, without a folder.

    Raises ImageError if no image can be read."""

    def __init__(self, model: Model, images: Images, finding: Finding, *, progress: bool = False) -> None:
        if len(finding.unreadable) == len(images):
            raise ImageError(f"none of the images of {images.where} can be read: {finding.unreadable[0][1]}")
        self.images, self.contract = images, model.input
        self.classes, self.labels, self.unreadable = model.labels, finding.labels, finding.unreadable
        usable = next(i for i in range(len(images)) if i not in dict(finding.unreadable))
        first = images.read(usable, model.input.reading)[0]
        self.size = (int(first.shape[1]), int(first.shape[2])) if isinstance(first, Tensor) else model.input.size
        self._tallies = finding.tallies.split()
        layers = self._tallies.keys() - {OUTPUT_NAME}
        self._fields = receptive_fields(model, self.size, layers=layers, progress=progress) if layers else {}

    def tally(self, layer: str) -> Tally:
        return self._tallies[layer]

    def field(self, layer: str) -> ReceptiveField | None:
        return self._fields.get(layer)


@dataclass(frozen=True)
class BestImage:
    """One of the best images of a channel.

    number, name, label: of the image in the data set. value: the score that it is ranked by.
    at: row and column of the channel's largest activation; None for a channel without places.
    seen: the part of the photograph that the network sees. box: the part that the unit at `at` sees. Both in px.
    mask: where the channel responds; None unless the network was run again to see it.
    """

    number: int
    name: str
    label: str | None
    value: float
    at: tuple[int, int] | None
    photo: Photo
    seen: Box
    box: Box | None
    mask: Mask | None = None

    @property
    def part(self) -> Box:
        """The part of the photograph to look at, in px: where the channel responds, or what its strongest unit sees."""
        return self.mask.box if self.mask else self.box or self.seen


def require_unit(target: Target) -> Unit:
    """The one channel or class that a target means. Raises TargetError for sums, single neurons and functions."""
    weight, unit = target.terms[0]
    if len(target.terms) > 1 or weight != 1 or not isinstance(unit, Unit) or unit.has_place or unit.probability:
        raise TargetError(f"images are ranked for channels (LAYER:CHANNEL) and classes, got {target}")
    return unit


def name_layer(unit: Unit) -> str:
    """The name of a unit's layer among the layers of a scan."""
    return OUTPUT_NAME if unit.layer == OUTPUT else unit.layer


def find_channel(index: AnyIndex, unit: Unit) -> int:
    """The number of a unit's channel in its layer. Raises TargetError where there is no such channel or class."""
    channels = len(index.tally(name_layer(unit)).sums)
    channel = unit.index_among(index.classes, "the network")
    if channel >= channels:
        raise TargetError(f"layer {name_layer(unit)!r} has channels 0 to {channels - 1}, got {channel}")
    return channel


def list_best(index: AnyIndex, unit: Unit, count: int) -> list[tuple[float, int, int]]:
    """The images that excite a unit's channel most, at most `count`, best first, without reading them: the score, the
    number of the image and the place (y * w + x) of the channel's largest activation.

    Where a channel is never below zero, as behind a ReLU, images that leave it at zero do not excite it and are left
    out; so a dead channel has none. Raises NonFiniteResult, TargetError."""
    layer = name_layer(unit)
    tally, channel = index.tally(layer), find_channel(index, unit)
    if not len(tally.values):
        raise NonFiniteResult(f"there is no image that can be read and gives layer {layer!r} finite activations")
    excited = tally.excited()[:count, channel]
    columns = (each[:count, channel][excited].tolist() for each in (tally.values, tally.images, tally.places))
    return list(zip(*columns, strict=True))


def find_best(index: AnyIndex, unit: Unit, count: int, maps: Maps | None = None) -> list[BestImage]:
    """The images that excite a unit's channel most, at most `count`, best first.

    maps: from `read_maps`, of those that get a mask. Raises ImageError, NonFiniteResult, TargetError."""
    layer, channel = name_layer(unit), find_channel(index, unit)
    field, mean = index.field(layer), float(index.tally(layer).mean[channel])
    found = []
    for value, number, place in list_best(index, unit, count):
        one = _read_best(index, field, value, number, place)
        activations = (maps or {}).get((layer, channel, number))
        mask = None if activations is None else make_mask(activations, mean, index.size, one.seen)
        found.append(replace(one, mask=mask))
    return found


def _read_best(index: AnyIndex, field: ReceptiveField | None, value: float, number: int, place: int) -> BestImage:
    """The image of a number, with what the unit at a place (y * w + x) sees of it. field: of the unit's layer."""
    image = index.images.read(number, index.contract.reading)[0]
    whole = to_photo(image) if isinstance(image, Tensor) else image
    photo = reduce_photo(whole, max(whole.size), index.contract.display)
    seen = Box(0, 0, *photo.size) if isinstance(image, Tensor) else index.contract.seen(photo.size)
    at = divmod(place, field.units[1]) if field else None
    box = field.box(*at).map_onto(index.size, seen) if field and at else None
    box = box if box and box.bottom > box.top and box.right > box.left else None
    return BestImage(number, index.images.names[number], index.labels[number], value, at, photo, seen, box)
