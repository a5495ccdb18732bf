"""Rank correlation."""

from __future__ import annotations

import numpy as np

from vizcnn.models.scoring import Scores


def spearman(a: Scores, b: Scores) -> float:
    """Spearman's rank correlation of two rows (n,); equal numbers share their mean rank.

    Where all numbers of a row are equal there is no order: 1 if that is so in both, 0 if in one."""
    constant = [bool((row == row[0]).all()) for row in (a, b)]
    if any(constant):
        return float(all(constant))
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Scores) -> Scores:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    after = np.cumsum(count)  # the numbers up to each distinct one
    ranks: Scores = (after - (count - 1) / 2)[place]
    return ranks
