"""Places: boxes of whole px in an input, and the windows and controls that are made of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Place = tuple[int, int, int, int]
"""Top, left, bottom and right of a box in px of the input; top left inclusive, bottom right exclusive."""

Size = tuple[int, int]
"""Height and width in px."""


def make_windows(size: Size, along: int, share: float) -> list[Place]:
    """A grid of so many windows along each side, each so large a share of the sides, from edge to edge."""
    height, width = (max(1, round(length * share)) for length in size)
    tops, lefts = (
        np.linspace(0, length - part, along).round().astype(int).tolist()
        for length, part in zip(size, (height, width), strict=True)
    )
    return [(top, left, top + height, left + width) for top in tops for left in lefts]


def measure_area(place: Place) -> int:
    """How many px a place has."""
    return (place[2] - place[0]) * (place[3] - place[1])


def measure_common(a: Place, b: Place) -> int:
    """How many px two places share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def shift(place: Place, down: int, right: int) -> Place:
    return place[0] + down, place[1] + right, place[2] + down, place[3] + right


def choose_apart(values: npt.NDArray[np.float64], windows: list[Place], count: int) -> npt.NDArray[np.int64]:
    """For each row of values (N, W) the windows of the largest values that do not touch each other: (N, count).

    Where fewer are apart, the rest is -1."""
    top, left, bottom, right = np.array(windows).T[:, :, None]  # (W, 1) each
    apart = (top >= bottom.T) | (bottom <= top.T) | (left >= right.T) | (right <= left.T)  # (W, W)
    open_values, chosen = values.copy(), np.full((len(values), count), -1, np.int64)
    for k in range(count):
        best = open_values.argmax(1)
        open_rows = np.isfinite(open_values[np.arange(len(values)), best])
        chosen[open_rows, k] = best[open_rows]
        open_values[~apart[best]] = -np.inf
    return chosen


def mirror(place: Place, size: Size) -> Iterator[Place]:
    """The place turned upside down, left to right, and both: of the same size, and as far from the edges."""
    top, left, bottom, right = place
    low, far = (size[0] - bottom, size[0] - top), (size[1] - right, size[1] - left)
    yield low[0], left, low[1], right
    yield top, far[0], bottom, far[1]
    yield low[0], far[0], low[1], far[1]


def choose_control(place: Place, size: Size, rng: np.random.Generator) -> Place:
    """A place of the same size that does not touch this one: a mirrored one, or in the middle of an image any.

    Where a place is so large that none is apart, the one that shares least with it."""
    free = _list_controls(place, size)
    return free[int(rng.integers(len(free)))]


@lru_cache(maxsize=4096)
def _list_controls(place: Place, size: Size) -> tuple[Place, ...]:
    free = tuple(other for other in mirror(place, size) if not measure_common(place, other))
    if free:
        return free
    height, width = place[2] - place[0], place[3] - place[1]
    corners = [
        (top, left, top + height, left + width)
        for top in range(0, size[0] - height + 1, 2)
        for left in range(0, size[1] - width + 1, 2)
    ]
    common = [measure_common(place, other) for other in corners]
    least = min(common)
    return tuple(other for other, px in zip(corners, common, strict=True) if px == least)
