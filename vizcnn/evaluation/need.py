"""Need: does a map lie where the network loses most when it is covered?"""

from __future__ import annotations

from vizcnn.evaluation.cells import Maps, correlate_ranks, sum_cells
from vizcnn.evaluation.coverings import Coverings


def measure_need(maps: Maps, coverings: Coverings, target: int = 0) -> Maps:
    """How well each of the maps (M, H, W) finds what a target needs: float64 (M,) in [-1, 1].

        need = (rho(cells alone) + rho(halves)) / 2

    rho: Spearman's rank correlation, over the coverings, of the map's sum in what is covered with what the target lost.
    target: its number in the coverings. No run of the network."""
    cells = sum_cells(maps, coverings.grid).reshape(len(maps), -1)  # (M, cells)
    inside = cells @ coverings.covered.reshape(len(coverings.covered), -1).T  # (M, K)
    drops, alone = coverings.drops[:, target], coverings.alone
    found: Maps = (
        correlate_ranks(inside[:, :alone], drops[:alone]) + correlate_ranks(inside[:, alone:], drops[alone:])
    ) / 2
    return found
