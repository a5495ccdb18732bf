"""Neighbours: units that go along with each other over the images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_ROWS = 1024  # units that are compared with all others at a time


@dataclass(frozen=True)
class Neighbours:
    """For each of C units those that go along with it most, the nearest first: (C, most) each.

    sites, units: int64, -1 where there are fewer. correlations: float32, Pearson's, NaN where there are fewer."""

    sites: Integers
    units: Integers
    correlations: Floats


def find_neighbours(means: Sequence[npt.NDArray[np.float16]], most: int, *, across: bool = True) -> list[Neighbours]:
    """The neighbours of all units of some sites, one after the other.

    means: for each site (n, C), what its units give for n images on average. across: whether units of other sites count
    too. A unit that gives the same for all images has no neighbours and is none."""
    if across:
        joined = _find_together([standardize(each) for each in means], most)
        cuts = np.cumsum([0, *(each.shape[1] for each in means)])
        return [Neighbours(joined.sites[a:b], joined.units[a:b], joined.correlations[a:b]) for a, b in pairwise(cuts)]
    return [_find_together([standardize(each)], most, first=i) for i, each in enumerate(means)]


def standardize(means: npt.NDArray[np.float16]) -> Floats:
    """Each unit's means (n, C) less their own mean, of length 1: (C, n); zero for a unit that gives the same for all.
    The product of two of them is Pearson's correlation."""
    centred = means.astype(np.float64) - means.astype(np.float64).mean(0) if len(means) else means.astype(np.float64)
    length = np.linalg.norm(centred, axis=0)
    return (centred / np.where(length > 0, length, 1)).T.astype(np.float32)


def _find_together(standard: Sequence[Floats], most: int, first: int = 0) -> Neighbours:
    """first: the number of the first of these sites."""
    vectors = np.concatenate(standard)  # (U, n)
    site = np.concatenate([np.full(len(each), first + i) for i, each in enumerate(standard)])
    unit = np.concatenate([np.arange(len(each)) for each in standard])
    alive = np.flatnonzero(vectors.any(1)) if vectors.shape[1] else np.zeros(0, np.int64)
    count = min(most, max(0, len(alive) - 1))
    sites, units = (np.full((len(vectors), most), -1, np.int64) for _ in range(2))
    correlations = np.full((len(vectors), most), np.nan, np.float32)
    for start in range(0, len(alive) if count else 0, _ROWS):
        rows = alive[start : start + _ROWS]
        likeness = vectors[rows] @ vectors[alive].T
        likeness[np.arange(len(rows)), start + np.arange(len(rows))] = -2  # itself
        near = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(near, np.argsort(-np.take_along_axis(likeness, near, 1), axis=1), 1)
        sites[rows, :count], units[rows, :count] = site[alive][order], unit[alive][order]
        correlations[rows, :count] = np.take_along_axis(likeness, order, 1).clip(-1, 1)
    return Neighbours(sites, units, correlations)
