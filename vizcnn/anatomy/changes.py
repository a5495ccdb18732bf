"""Changes: how much each unit differs between two networks that have looked at the same images.

The change of a unit is  1 - r,  with r Pearson's correlation, over the images, of its means over all places in the one
network with those in the other. 0: it tells the images apart as before; 1: what it gave says nothing of what it gives;
2: the opposite. A factor or an offset between the two does not count: how strongly a unit responds is another question,
which its highest and mean values answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vizcnn.anatomy.neighbours import Floats, Integers, standardize

LEAST = 3
"""Images without which a correlation says nothing."""

_ROWS = 1024  # units that are compared with all others at a time
_EQUAL = 1e-6  # by which equal correlations differ in single precision


@dataclass(frozen=True)
class Changes:
    """How C units of a layer differ between this network and another, and which of the other's each is most like.

    change: float32 (C,), from 0 to 2. A unit that gives the same for all images in both networks has not changed; one
    that does so in one of them alone has a change of 1. nearest: int64 (C,), the unit of the same layer of the other
    network that correlates with it most, -1 where there is none. likeness: float32 (C,), that correlation, NaN where
    there is none."""

    change: Floats
    nearest: Integers
    likeness: Floats


def compare_means(own: npt.NDArray[np.float16], others: npt.NDArray[np.float16]) -> Changes:
    """How the units of a layer differ between two networks.

    own, others: (n, C), what each unit gives for the same n images on average, in this network and in the other."""
    here, there = standardize(own), standardize(others)  # (C, n)
    is_constant = ~here.any(1) & ~there.any(1)
    correlation = np.where(is_constant, 1, (here * there).sum(1).clip(-1, 1))
    change = np.where((own == others).all(0), 0, 1 - correlation).astype(np.float32)
    return Changes(change, *_find_nearest(here, there))


def _find_nearest(here: Floats, there: Floats) -> tuple[Integers, Floats]:
    """Of units that are equally near that of the same number is named, else the first."""
    nearest, likeness = np.full(len(here), -1, np.int64), np.full(len(here), np.nan, np.float32)
    alive, others = np.flatnonzero(here.any(1)), np.flatnonzero(there.any(1))
    for start in range(0, len(alive) if len(others) else 0, _ROWS):
        rows = alive[start : start + _ROWS]
        table = here[rows] @ there[others].T
        best = table.max(1)
        is_best = table >= best[:, None] - _EQUAL
        is_same = (is_best & (others == rows[:, None])).any(1)
        nearest[rows] = np.where(is_same, rows, others[is_best.argmax(1)])
        likeness[rows] = best.clip(-1, 1)
    return nearest, likeness
