"""Regions: which part of every value a window can change, by arithmetic on intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from vizcnn.graph.geometry import Neighbourhood, Pair
from vizcnn.graph.recording import Step
from vizcnn.models.scoring import Indices
from vizcnn.occlusion.incremental.space import Local, MapGeometry, Space
from vizcnn.occlusion.windows import Windows

Ints = npt.NDArray[np.int64]

Interval = tuple[Ints, Ints]
"""For each of n windows the first row (or column), and one past the last."""

WHOLE = 0.85
"""A crop of more than this share of a map saves nothing: the whole map is computed instead."""


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


@dataclass(frozen=True)
class Region:
    """The part of one value that each of n windows can change: these rows and columns."""

    rows: Interval
    columns: Interval
    space: Space

    @cached_property
    def crop(self) -> Crop:
        """What is computed: the region and as much beside it, inside the map, as makes all crops equally large, so
        that one tensor holds them."""
        height, width = (int((high - low).max()) for low, high in (self.rows, self.columns))
        top = np.minimum(self.rows[0], self.space.size[0] - height)
        left = np.minimum(self.columns[0], self.space.size[1] - width)
        return Crop(top, left, (height, width))

    @property
    def areas(self) -> Ints:
        """How many places each window can change."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    @property
    def is_whole(self) -> bool:
        """Whether the crop is so large that the whole map is as cheap."""
        (height, width), (map_height, map_width) = self.crop.size, self.space.size
        return height * width >= WHOLE * map_height * map_width

    def select(self, indices: Indices) -> Region:
        """The region of some of the windows, whose crops may be smaller."""
        rows, columns = ((low[indices], high[indices]) for low, high in (self.rows, self.columns))
        return Region(rows, columns, self.space)


def find_regions(steps: Sequence[Step], geometry: MapGeometry, windows: Windows) -> dict[int, Region]:
    """For each value that keeps the image's rows and columns: the region that each window can change."""
    top, bottom, left, right = windows.T
    regions = {0: Region((top, bottom), (left, right), geometry.spaces[0])}
    for step, kind in zip(steps, geometry.kinds, strict=False):
        if kind is None or not all(value in regions for value in step.inputs):
            continue
        inputs = [regions[value] for value in step.inputs]
        region = _find_output_region(inputs, kind, geometry.spaces[step.outputs[0]])
        regions.update((value, region) for value in step.outputs if value in geometry.spaces)
    return regions


def _find_output_region(inputs: Sequence[Region], kind: Neighbourhood | Local, space: Space) -> Region:
    """The part of a step's outputs that windows can change, from that of its inputs. space: the outputs'.

    Only the first input of a sliding step is read through its kernel; all others are read at the output's own place."""
    rows, columns = [region.rows for region in inputs], [region.columns for region in inputs]
    if isinstance(kind, Neighbourhood):
        rows[0], columns[0] = (
            _find_readers(interval, kind, axis, space.size[axis]) for axis, interval in enumerate((rows[0], columns[0]))
        )
    return Region(_enclose(rows), _enclose(columns), space)


def _enclose(intervals: Sequence[Interval]) -> Interval:
    """The shortest interval that holds all of these."""
    return reduce(np.minimum, [low for low, _ in intervals]), reduce(np.maximum, [high for _, high in intervals])


def _find_readers(interval: Interval, kind: Neighbourhood, axis: int, length: int) -> Interval:
    """The outputs, of `length`, that read something of an interval; at least one, so that crops are never empty.

    Output y reads from y * stride - padding to y * stride - padding + reach. It reads something of [low, high) if this
    ends at or after low and begins before high:

        y >= (low + padding - reach) / stride    and    y <= (high - 1 + padding) / stride
    """
    stride, padding = kind.stride[axis], kind.padding[axis]
    reach = (kind.kernel[axis] - 1) * kind.dilation[axis]
    low = np.clip(-((reach - interval[0] - padding) // stride), 0, length - 1)  # -(-a // b) rounds up
    high = np.clip((interval[1] - 1 + padding) // stride + 1, 1, length)
    return low, np.maximum(high, low + 1)
