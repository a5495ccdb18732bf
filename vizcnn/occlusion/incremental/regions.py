"""Regions: which part of every value a window can touch, by arithmetic on intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from vizcnn.graph.geometry import Neighbourhood, Pair
from vizcnn.graph.recording import Step
from vizcnn.occlusion.incremental.space import Local, MapGeometry, Space
from vizcnn.occlusion.windows import Ints, Windows

Interval = tuple[Ints, Ints]

WHOLE = 0.85
"""A crop of more than this share of a map saves nothing: the whole map is computed instead."""


@dataclass(frozen=True)
class Region:
    """The crops of one value for n windows: all of one size (height, width), at top and left of each, inside the map.

    rows, columns: what each window touches, first and one past last; a crop holds that."""

    rows: Interval
    columns: Interval
    space: Space

    @cached_property
    def size(self) -> Pair:
        return int((self.rows[1] - self.rows[0]).max()), int((self.columns[1] - self.columns[0]).max())

    @cached_property
    def top(self) -> Ints:
        return np.minimum(self.rows[0], self.space.size[0] - self.size[0])

    @cached_property
    def left(self) -> Ints:
        return np.minimum(self.columns[0], self.space.size[1] - self.size[1])

    @property
    def areas(self) -> Ints:
        """How many places each window touches."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def of(self, chosen: Ints) -> Region:
        """The same for some of the windows."""
        rows, columns = ((low[chosen], high[chosen]) for low, high in (self.rows, self.columns))
        return Region(rows, columns, self.space)

    @property
    def is_whole(self) -> bool:
        height, width = self.space.size
        return self.size[0] * self.size[1] >= WHOLE * height * width


def find_regions(steps: Sequence[Step], geometry: MapGeometry, windows: Windows) -> dict[int, Region]:
    """For each value that keeps the image's rows and columns: the region that each window can change."""
    top, bottom, left, right = windows.T
    found = {0: Region((top, bottom), (left, right), geometry.spaces[0])}
    for step, kind in zip(steps, geometry.kinds, strict=False):
        if kind is None or not all(value in found for value in step.inputs):
            continue
        touched = _touched([found[value] for value in step.inputs], kind, geometry.spaces[step.outputs[0]])
        found.update((value, touched) for value in step.outputs if value in geometry.spaces)
    return found


def _touched(inputs: Sequence[Region], kind: Neighbourhood | Local, space: Space) -> Region:
    intervals = [(region.rows, region.columns) for region in inputs]
    if isinstance(kind, Neighbourhood):
        intervals[0] = _slid_both(intervals[0], kind, space)
    rows, columns = (_hull(along) for along in zip(*intervals, strict=True))
    return Region(rows, columns, space)


def _slid_both(intervals: tuple[Interval, Interval], reads: Neighbourhood, space: Space) -> tuple[Interval, Interval]:
    rows, columns = (_slid(each, reads, axis, space.size[axis]) for axis, each in enumerate(intervals))
    return rows, columns


def _hull(intervals: Sequence[Interval]) -> Interval:
    return reduce(np.minimum, [low for low, _ in intervals]), reduce(np.maximum, [high for _, high in intervals])


def _slid(interval: Interval, reads: Neighbourhood, axis: int, length: int) -> Interval:
    """The outputs that read something of the interval; at least one, so that crops are never empty."""
    stride, padding = reads.stride[axis], reads.padding[axis]
    across = (reads.kernel[axis] - 1) * reads.dilation[axis]
    low = np.clip(-((across - interval[0] - padding) // stride), 0, length - 1)
    high = np.clip((interval[1] - 1 + padding) // stride + 1, 1, length)
    return low, np.maximum(high, low + 1)
