"""Collect the scores under all windows, and refuse what none moves: a map of rounding errors looks like any other."""

from __future__ import annotations

import numpy as np
import torch

from vizcnn import progress
from vizcnn.errors import DegenerateResult
from vizcnn.models.scoring import Scores, differ, score_batches
from vizcnn.occlusion.plain import Case
from vizcnn.occlusion.sweep import Sweep


def collect(sweep: Sweep, *, shown: bool) -> tuple[list[Scores], bool]:
    """The targets' scores under every window, float64 (n, T) per image, and whether Ctrl-C ended the sweep.

    Interrupted, the last image reached has NaN for the windows that did not come. shown: whether a bar is, for what
    takes longer than two seconds. Raises DegenerateResult for a target that no window moves, as soon as it can be told.
    """
    collected: list[Scores] = []
    windows = len(sweep.windows)
    try:
        with progress.bar(len(sweep.cases) * windows, "occlusion", "window", shown=shown) as bar:
            for i, case in enumerate(sweep.cases):
                for places, scores in sweep.score(case):
                    first = len(collected) == i
                    if first:
                        collected.append(np.full((windows, scores.shape[1]), np.nan))
                    bar.update(int(np.isnan(collected[i][places, 0]).sum()))
                    collected[i][places] = scores
                    if first:
                        _refuse_unmovable(sweep, case, scores)
    except KeyboardInterrupt:
        if not collected:
            raise
        return collected, True
    for case, scores in zip(sweep.cases, collected, strict=True):
        _refuse_unmoved(case, scores)
    return collected, False


def _refuse_unmovable(sweep: Sweep, case: Case, scores: Scores) -> None:
    """Refuse a target that nothing can move before all windows are run, given its scores (n, T) under the first ones.

    Where those do nothing, the whole image is covered, turned into its negative, mirrored and replaced by noise."""
    if differ(scores, case.scores, case.largest, case.image.dtype).all():
        return
    noise = torch.rand(case.image.shape, generator=torch.Generator().manual_seed(0)).to(case.image)
    others = torch.stack([case.cover, 1 - case.image, case.image.flip(-1), noise])  # (4, C, H, W)
    batches = score_batches(
        sweep.model, others.__getitem__, np.arange(4), case.targets, batch=1, layout=sweep.layout, shown=False
    )
    every = np.concatenate([scores, *(more for _, more in batches)])  # (n + 4, T)
    for t in np.nonzero(~differ(every, case.scores, case.largest, case.image.dtype))[0]:
        raise DegenerateResult(
            f"no window changes the target {case.targets[t]} of {case.name} by more than rounding "
            f"(it stays {case.scores[t]:g} under the first {len(scores)}), nor does covering the whole image, "
            "its negative, its mirror image or noise: a dead unit, or one that does not see the input"
        )


def _refuse_unmoved(case: Case, scores: Scores) -> None:
    for t in np.nonzero(~differ(scores, case.scores, case.largest, case.image.dtype))[0]:
        raise DegenerateResult(
            f"no window changes the target {case.targets[t]} of {case.name} by more than "
            f"rounding (it stays {case.scores[t]:g}): a dead unit, or one that does not see the input"
        )
