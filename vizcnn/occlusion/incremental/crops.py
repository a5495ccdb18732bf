"""Crops: what a step reads for a batch of windows, and where in memory that lies.

The rows of a value are its clean places, one row of numbers per place, then a row of zeros and one of minus infinity
(what padding holds), then the places of the batch's crops. So everything that any step reads, the crop, the clean
map around it and the padding beyond, is one selection of rows, whose numbers depend on geometry alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.graph.geometry import Neighbourhood, Pair
from vizcnn.occlusion.incremental.regions import Region
from vizcnn.occlusion.incremental.space import Kind, Space
from vizcnn.occlusion.windows import Ints

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int32]

ZEROS, LOWEST, PADDINGS = 0, 1, 2


@dataclass(frozen=True)
class Crop:
    """For each window of a batch a rectangle of one size, which may lie partly beyond the map."""

    top: Ints
    left: Ints
    size: Pair

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Crop)
            and self.size == other.size
            and np.array_equal(self.top, other.top)
            and np.array_equal(self.left, other.left)
        )


def crop_of(region: Region) -> Crop:
    return Crop(region.top, region.left, region.size)


def whole(space: Space, windows: int) -> Crop:
    nowhere = np.zeros(windows, np.int64)
    return Crop(nowhere, nowhere, space.size)


def read_by(kind: Kind, out: Region | None, source: Space, windows: int) -> tuple[Crop, Pair]:
    """What a step reads of an input that is known in part, and the padding that is left for the operation to do.

    Along an axis that is computed completely a sliding step reads all and pads by itself."""
    if out is None:
        return whole(source, windows), kind.padding if isinstance(kind, Neighbourhood) else (0, 0)
    if not isinstance(kind, Neighbourhood):
        return crop_of(out), (0, 0)
    down, across = (_read_along(kind, out, source, axis) for axis in (0, 1))
    return Crop(down[0], across[0], (down[1], across[1])), (down[2], across[2])


def _read_along(reads: Neighbourhood, out: Region, source: Space, axis: int) -> tuple[Ints, int, int]:
    """Along one axis: where reading starts, how many places are read, and the padding left to do."""
    start, length = ((out.top, out.left)[axis], out.size[axis])
    if length == out.space.size[axis]:
        return np.zeros_like(start), source.size[axis], reads.padding[axis]
    count = (length - 1) * reads.stride[axis] + (reads.kernel[axis] - 1) * reads.dilation[axis] + 1
    return start * reads.stride[axis] - reads.padding[axis], count, 0


def row_numbers(space: Space, have: Crop | None, wanted: Crop, padding: int) -> Tensor:
    """Which rows of a value a crop consists of: int32 (B * height * width,).

    have: the crops whose places follow after the paddings; None where there are only clean places."""
    (height, width), (y, x) = space.size, _places(wanted)
    numbers = _outer(y * width, x)  # (B, h, w)
    if have is not None:
        inner_y, inner_x = y - _column(have.top), x - _column(have.left)
        first = height * width + PADDINGS + _column(np.arange(len(y))) * (have.size[0] * have.size[1])
        inside = _both(_within(inner_y, have.size[0]), _within(inner_x, have.size[1]))
        np.copyto(numbers, _outer(first + inner_y * have.size[1], inner_x), where=inside)
    on_map = _within(y, height), _within(x, width)
    if not all(along.all() for along in on_map):
        numbers[~_both(*on_map)] = height * width + padding
    return torch.from_numpy(numbers.reshape(-1))


def _column(numbers: Ints) -> Numbers:
    return numbers.astype(np.int32)[:, None]


def _outer(rows: Numbers, columns: Numbers) -> Numbers:
    return rows[:, :, None] + columns[:, None, :]


def _within(places: Numbers, length: int) -> Flags:
    return (places >= 0) & (places < length)


def _places(crop: Crop) -> tuple[Numbers, Numbers]:
    """The rows (B, height) and columns (B, width) of a map that a crop shows."""
    height, width = (np.arange(length, dtype=np.int32) for length in crop.size)
    return _column(crop.top) + height, _column(crop.left) + width


def _both(rows: Flags, columns: Flags) -> Flags:
    return rows[:, :, None] & columns[:, None, :]


def inside(crop: Crop, region: Region) -> Tensor:
    """Which places of a crop each window touches: bool (B, height, width)."""
    y, x = _places(crop)
    rows = (y >= region.rows[0][:, None]) & (y < region.rows[1][:, None])
    columns = (x >= region.columns[0][:, None]) & (x < region.columns[1][:, None])
    return torch.from_numpy(_both(rows, columns))


def as_rows(value: Tensor, space: Space) -> Tensor:
    """A value (B, ...) as rows, one per place: (B * height * width, everything else)."""
    last = value.movedim(space.axes, (1, 2))
    return last.reshape(last.shape[0] * last.shape[1] * last.shape[2], -1)


def from_rows(rows: Tensor, space: Space, size: Pair, rest: tuple[int, ...]) -> Tensor:
    """The value (B, ...) of places in rows; `rest` are its axes that are neither the batch nor of space."""
    return rows.view(-1, *size, *rest).movedim((1, 2), space.axes)
