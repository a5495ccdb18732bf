"""Statistics of an audit: intervals of differences, and what a folder of a size could prove."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from vizcnn.auditing.copies import FEWEST

_SURE = 0.95
_SMALLEST_DEVIATION = 1e-3  # logits: a few equal differences would give an interval of no width
_CHANCE = 0.98


def measure_interval(differences: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean of differences (n,) and its 95% interval by Student's t; infinite for fewer than two."""
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    if count < 2:
        return mean, -np.inf, np.inf
    deviation = max(float(differences.std(ddof=1)), _SMALLEST_DEVIATION)
    half = float(stats.t.ppf(0.5 + _SURE / 2, count - 1)) * deviation / count**0.5
    return mean, float(mean - half), float(mean + half)


def find_smallest_share(images: int, searched: int) -> float | None:
    """The smallest share of a class in which a copied cue can be proven; None where there is none.

    images: of the class; searched: how many of them are in the half that is searched. Both halves must get three of
    the images with the cue, which by chance (hypergeometric) they do in 98 of 100 draws."""
    for carriers in range(2 * FEWEST, images + 1):
        draws = stats.hypergeom(images, carriers, searched)
        if draws.cdf(carriers - FEWEST) - draws.cdf(FEWEST - 1) >= _CHANCE:
            return carriers / images
    return None
