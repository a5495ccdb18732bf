"""Rank correlation."""

from __future__ import annotations

import numpy as np

from vizcnn.models.scoring import Scores


def spearman(a: Scores, b: Scores) -> float:
    """Spearman's rank correlation of two rows (n,); equal numbers share their mean rank.

    A row of equal numbers has no order: the correlation is then 1 if both rows are such, else 0."""
    constant = [bool((row == row[0]).all()) for row in (a, b)]
    if any(constant):
        return float(all(constant))
    return float(np.corrcoef(_rank(a), _rank(b))[0, 1])


def _rank(row: Scores) -> Scores:
    """The rank of each number, from 1."""
    _, which, count = np.unique(row, return_inverse=True, return_counts=True)
    last = np.cumsum(count)  # the last rank of each distinct number
    ranks: Scores = (last - (count - 1) / 2)[which]
    return ranks
