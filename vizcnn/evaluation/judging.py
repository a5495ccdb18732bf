"""Judging: from a map, what covering costs and the map of another class to a verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vizcnn.errors import DegenerateResult, NonFiniteResult, ShapeError
from vizcnn.evaluation.cells import Maps, choose_finest, compare, measure_areas, sum_cells
from vizcnn.evaluation.coverings import Coverings
from vizcnn.evaluation.need import measure_need
from vizcnn.evaluation.nulls import compute_percentile, make_middle, make_nulls
from vizcnn.results.trust import ALIKE, Trust


def judge_map(
    values: npt.NDArray[np.floating],
    coverings: Coverings,
    target: int = 0,
    *,
    contrast: npt.NDArray[np.floating] | None = None,
    contrast_target: str = "",
    contrast_note: str = "",
    seed: int = 0,
) -> Trust:
    """How far a map (H, W) of any size that spans the image can be believed. No run of the network.

    target: the number in the coverings of the target that the map explains.
    contrast: the same method's map for another class, of any size; None where there is none, for which `contrast_note`
        is the reason. An even one, such as zeros, is like no map.
    seed: of the null maps.
    Raises ShapeError, NonFiniteResult for NaN or infinity, and DegenerateResult for a map that is even all over and for
    a target that no covering changes."""
    if not coverings.drops[:, target].any():
        raise DegenerateResult(
            "covering parts of the image changes the target by no more than rounding: it needs no part more than "
            "another, and no map can be judged by that. Take another target, or "
            "another cover: vizcnn.evaluate(..., fill='black')"
        )
    own = check_map(values, coverings.grid)
    grid = choose_finest(own.shape)
    areas = measure_areas(own.shape, grid)  # cells differ by a row or a column, and null maps know that too
    means = sum_cells(own, grid) / areas
    found, middle = measure_need(np.stack([means, make_middle(grid)]) * areas, coverings, target)
    nulls = measure_need(make_nulls(means, seed=seed) * areas, coverings, target)
    return Trust(
        need=compute_percentile(found, nulls),
        correlation=float(found),
        blob=float(middle),
        contrast=None if contrast is None else compare(own, check_map(contrast, coverings.grid, is_even=True)),
        contrast_target=contrast_target,
        contrast_note=contrast_note,
        runs=coverings.runs,
    )


def excuse_likeness(trust: Trust) -> Trust:
    """The same for a map without signs where there are two classes: of these, what speaks for one speaks against the
    other, and the magnitudes of both may be the same though the map is about the classes."""
    if trust.contrast is None or trust.contrast <= ALIKE:
        return trust
    return replace(trust, contrast=None, contrast_note="a map without signs can be the same for both of two classes")


def check_map(values: npt.NDArray[np.floating], grid: tuple[int, int], *, is_even: bool = False) -> Maps:
    """The map as float64 (H, W). is_even: whether it may be even all over."""
    own = np.asarray(values, np.float64)
    if own.ndim != 2 or own.shape[0] < grid[0] or own.shape[1] < grid[1]:
        raise ShapeError(
            f"a map is (H, W) and spans the image, with at least {grid[0]} x {grid[1]} values, got {own.shape}. Of "
            "attributions (C, H, W) give the sum over channels"
        )
    if not np.isfinite(own).all():
        raise NonFiniteResult("the map holds NaN or infinity, and cannot be judged. Fill in the gaps first")
    if not is_even and (own == own.flat[0]).all():
        raise DegenerateResult("the map is even all over: it points at nothing that could be judged")
    return own
