"""Crops: what a step reads for a batch of windows, and where in memory that lies.

A value is kept as vectors: for each place of its map one vector of all its channels. First come the places of the clean
map, row by row; then a vector of zeros and one of minus infinity, which is what padding holds; then the places of the
batch's crops. So everything that a step reads, the crop, the clean map around it and the padding beyond, is one
selection of vectors, and their indices depend on geometry alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.graph.geometry import Neighbourhood, Pair
from vizcnn.occlusion.incremental.regions import Crop, Ints, Region
from vizcnn.occlusion.incremental.space import Space

Flags = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]

ZEROS, LOWEST, PADDINGS = 0, 1, 2
"""Where, after the clean places, the vectors of zeros and of minus infinity lie; and how many these are."""


def plan_read(sliding: Neighbourhood | None, out: Region | None, source: Space, windows: int) -> tuple[Crop, Pair]:
    """What a step reads of an input that is known in part, and the padding that is left for the operation to do.

    sliding: how the step slides over this input; None where it reads it place by place.
    out: the region of the step's outputs; None where these are computed whole.
    source: the input's space. windows: how many there are."""
    if out is None:
        return read_whole_map(source, windows), sliding.padding if sliding else (0, 0)
    if sliding is None:
        return out.crop, (0, 0)
    down, across = (_plan_read_along(sliding, out, source, axis) for axis in (0, 1))
    return Crop(down[0], across[0], (down[1], across[1])), (down[2], across[2])


def read_whole_map(space: Space, windows: int) -> Crop:
    """Crops that are the whole map."""
    corner = np.zeros(windows, np.int64)
    return Crop(corner, corner, space.size)


def _plan_read_along(sliding: Neighbourhood, out: Region, source: Space, axis: int) -> tuple[Ints, int, int]:
    """Along one axis: where reading starts, how many places are read, and the padding that is left to do.

    Where the outputs are computed from end to end, all is read and the operation pads by itself."""
    start, length = (out.crop.top, out.crop.left)[axis], out.crop.size[axis]
    if length == out.space.size[axis]:
        return np.zeros_like(start), source.size[axis], sliding.padding[axis]
    count = (length - 1) * sliding.stride[axis] + (sliding.kernel[axis] - 1) * sliding.dilation[axis] + 1
    return start * sliding.stride[axis] - sliding.padding[axis], count, 0


def find_indices(space: Space, known: Crop | None, wanted: Crop, padding: int) -> Tensor:
    """The indices of the vectors that make up the `wanted` crops of a value: int32 (B * height * width,).

    known: the crops whose vectors follow after the paddings; None where there are only clean places.
    padding: what lies beyond the map, ZEROS or LOWEST."""
    (height, width), (y, x) = space.size, _find_places(wanted)  # (B, h, 1) and (B, 1, w)
    indices = y * width + x  # (B, h, w)
    if known is not None:
        inner_y, inner_x = y - _align(known.top), x - _align(known.left)
        first = height * width + PADDINGS + _align(np.arange(len(y))) * (known.size[0] * known.size[1])
        inside = _is_within(inner_y, known.size[0]) & _is_within(inner_x, known.size[1])
        np.copyto(indices, first + inner_y * known.size[1] + inner_x, where=inside)
    on_map = _is_within(y, height), _is_within(x, width)
    if not all(along.all() for along in on_map):
        indices[~(on_map[0] & on_map[1])] = height * width + padding
    return torch.from_numpy(indices.reshape(-1))


def _find_places(crop: Crop) -> tuple[Int32s, Int32s]:
    """The rows (B, height, 1) and columns (B, 1, width) of a map that a crop shows."""
    rows, columns = (np.arange(length, dtype=np.int32) for length in crop.size)
    return _align(crop.top) + rows[:, None], _align(crop.left) + columns


def _align(per_window: Ints) -> Int32s:
    """A number for each window, to be joined with rows and columns: int32 (B, 1, 1)."""
    return per_window.astype(np.int32)[:, None, None]


def _is_within(places: Int32s, length: int) -> Flags:
    return (places >= 0) & (places < length)


def mark_windows(crop: Crop, windows: Region) -> Tensor:
    """Which places of a crop of the image each window covers: bool (B, height, width)."""
    y, x = _find_places(crop)
    (top, bottom), (left, right) = ([_align(end) for end in ends] for ends in (windows.rows, windows.columns))
    return torch.from_numpy((y >= top) & (y < bottom) & ((x >= left) & (x < right)))


def to_vectors(value: Tensor, space: Space) -> Tensor:
    """A value (B, ...) as vectors, one per place: (B * height * width, everything else)."""
    last = value.movedim(space.axes, (1, 2))
    return last.reshape(last.shape[0] * last.shape[1] * last.shape[2], -1)


def from_vectors(vectors: Tensor, space: Space, size: Pair, rest: tuple[int, ...]) -> Tensor:
    """The value (B, ...) whose places, `size` of them, are given as vectors.

    rest: the lengths of its axes that are neither the batch nor rows and columns."""
    return vectors.view(-1, *size, *rest).movedim((1, 2), space.axes)
