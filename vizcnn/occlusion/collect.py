"""Collect the scores under all windows.

A target that no window changes is refused: a map of rounding errors looks like any other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vizcnn import progress
from vizcnn.errors import DegenerateResult, Interrupted
from vizcnn.models.batches import Answers, answer_each
from vizcnn.models.scoring import Scores, differ, score_batches
from vizcnn.occlusion.plain import Case
from vizcnn.occlusion.sweep import Sweep


def collect(sweep: Sweep, *, shown: bool, strict: bool = False) -> Answers[Scores]:
    """For each image the targets' scores under every window, float64 (n, T).

    An image with a target that no window changes is refused, as soon as that is clear, and so is one whose scores are
    not finite; see `vizcnn.models.batches.answer_each`, also for `strict`. After Ctrl-C there are only the images that
    were reached, and the last has NaN for the windows that were not.
    shown: whether what takes longer than two seconds shows a progress bar.
    """
    with progress.bar(len(sweep.cases) * len(sweep.windows), "occlusion", "window", shown=shown) as bar:

        def score(part: slice) -> list[Scores]:
            return [_score_windows(sweep, sweep.cases[part.start], bar.update)]

        return answer_each(len(sweep.cases), score, strict=strict)


def _score_windows(sweep: Sweep, case: Case, advance: Callable[[int], object]) -> Scores:
    """The targets' scores under every window, (n, T). advance: is told of windows that are done.

    Raises DegenerateResult, NonFiniteResult, and after Ctrl-C Interrupted with the scores so far."""
    collected = np.full((len(sweep.windows), len(case.targets)), np.nan)
    begun = False
    try:
        for indices, scores in sweep.score(case):
            advance(int(np.isnan(collected[indices, 0]).sum()))
            collected[indices] = scores
            if not begun:
                _check_can_change(sweep, case, scores)
            begun = True
    except KeyboardInterrupt:
        if np.isnan(collected[:, 0]).all():
            raise
        raise Interrupted(collected) from None
    _check_changed(case, collected)
    return collected


def _check_can_change(sweep: Sweep, case: Case, scores: Scores) -> None:
    """Raise DegenerateResult, before all windows are run, for a target that nothing changes.

    scores: (n, T), under the first windows. Only where these change nothing, the network also sees the whole image
    covered, its negative, its mirror image and noise."""
    if differ(scores, case.scores, case.largest, case.image.dtype).all():
        return
    noise = torch.rand(case.image.shape, generator=torch.Generator().manual_seed(0)).to(case.image)
    others = torch.stack([case.baseline, 1 - case.image, case.image.flip(-1), noise])  # (4, C, H, W)
    batches = score_batches(
        sweep.model, others.__getitem__, np.arange(4), case.targets, batch=1, layout=sweep.layout, shown=False
    )
    every = np.concatenate([scores, *(other for _, other in batches)])  # (n + 4, T)
    unchanged = np.flatnonzero(~differ(every, case.scores, case.largest, case.image.dtype))
    if len(unchanged):
        t = unchanged[0]
        raise DegenerateResult(
            f"no window changes the target {case.targets[t]} of {case.name} by more than rounding "
            f"(it stays {case.scores[t]:g} under the first {len(scores)}), nor does covering the whole image, "
            "its negative, its mirror image or noise: a dead unit, or one that does not see the input"
        )


def _check_changed(case: Case, scores: Scores) -> None:
    """Raise DegenerateResult for a target that no window has changed. scores: (n, T), under all windows."""
    unchanged = np.flatnonzero(~differ(scores, case.scores, case.largest, case.image.dtype))
    if len(unchanged):
        t = unchanged[0]
        raise DegenerateResult(
            f"no window changes the target {case.targets[t]} of {case.name} by more than "
            f"rounding (it stays {case.scores[t]:g}): a dead unit, or one that does not see the input"
        )
