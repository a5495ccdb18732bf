"""Cells: the grid into which an image is cut, so that maps of any kind can be compared with what covering costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Maps = npt.NDArray[np.float64]

_DIGITS = 10  # that sums are compared with: in later ones equal sums differ, for the order of adding

_FINEST = 24  # cells along a side that are of use: coverings tell no finer parts apart

LIKENESS = 12  # cells along a side over which two maps are compared: noise of px and upsampling do not count


def split(length: int, parts: int) -> npt.NDArray[np.int64]:
    """The edges of so many parts, as even as whole px allow: (parts + 1,), from 0 to the length."""
    return np.linspace(0, length, parts + 1).round().astype(np.int64)


def sum_cells(maps: Maps, grid: tuple[int, int]) -> Maps:
    """What of each map (..., H, W) lies in each cell of a grid of so many rows and columns: (..., rows, columns)."""
    rows, columns = (split(length, parts)[:-1] for length, parts in zip(maps.shape[-2:], grid, strict=True))
    sums: Maps = np.add.reduceat(np.add.reduceat(maps, rows, -2), columns, -1)
    return sums


def choose_finest(size: tuple[int, ...]) -> tuple[int, int]:
    """The finest grid that a map of this height and width needs: 24 x 24, or as many cells as it has values."""
    return min(_FINEST, size[0]), min(_FINEST, size[1])


def measure_areas(size: tuple[int, ...], grid: tuple[int, int]) -> Maps:
    """How many px, or values of a map of this height and width, lie in each cell: (rows, columns)."""
    return sum_cells(np.ones(size), grid)


def enlarge_cells(cells: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Cells (..., rows, columns) as masks of px, (..., H, W)."""
    rows, columns = (
        np.repeat(np.arange(parts), np.diff(split(length, parts)))
        for length, parts in zip(size, cells.shape[-2:], strict=True)
    )
    return cells[..., rows[:, None], columns]


def enlarge_map(values: Maps, size: tuple[int, int]) -> Maps:
    """A map (H, W) with at least so many rows and columns: each of its values is repeated where there are fewer.

    So each cell of a grid gets of a coarse map, such as 7 x 7 for 224 px, what lies in it, wherever its edges are."""
    rows, columns = (
        (np.arange(length) + 0.5) * own // length if own < length else np.arange(own)
        for length, own in zip(size, values.shape, strict=True)
    )
    enlarged: Maps = values[rows.astype(np.int64)[:, None], columns.astype(np.int64)]
    return enlarged


def resize_map(values: Maps, size: tuple[int, int]) -> Maps:
    """A map (H, W) with just so many rows and columns: coarse ones are enlarged, and of finer ones means are taken, so
    that the cells of an image of this size, which are whole px, get what lies in them."""
    enlarged = enlarge_map(values, size)
    return enlarged if enlarged.shape == size else sum_cells(enlarged, size) / measure_areas(enlarged.shape, size)


def compare(a: Maps, b: Maps) -> float:
    """The likeness of two maps (H, W) of any sizes: Spearman's rank correlation of their means in 12 x 12 cells, or in
    as many as fit. 0 where one of them is even all over.

    Means, for cells differ by a row or a column: the sums of two maps with a floor would be alike for that alone."""
    grid = (min(LIKENESS, len(a), len(b)), min(LIKENESS, a.shape[1], b.shape[1]))
    own, other = (sum_cells(one, grid) / measure_areas(one.shape, grid) for one in (a, b))
    return float(correlate_ranks(own.reshape(1, -1), other.ravel())[0])


def correlate_ranks(rows: Maps, values: Maps) -> Maps:
    """Spearman's rank correlation of each of M rows (M, K) with the values (K,): (M,), 0 for a row of equal numbers.

    Numbers that differ by rounding alone are equal, and share a rank: a map with an even floor has many."""
    a, b = _rank(rows), _rank(values[None])[0]
    a, b = a - a.mean(1, keepdims=True), b - b.mean()
    size = np.sqrt((a * a).sum(1) * (b @ b))  # (M,)
    found: Maps = np.divide(a @ b, size, out=np.zeros(len(a)), where=size > 0)
    return found


def _rank(rows: Maps) -> Maps:
    """The ranks of the numbers of each row (M, K), ties in the middle of theirs: (M, K)."""
    from scipy.stats import rankdata

    largest = np.abs(rows).max(1, keepdims=True)  # (M, 1)
    ranks: Maps = rankdata((rows / np.where(largest > 0, largest, 1)).round(_DIGITS), axis=1)
    return ranks
