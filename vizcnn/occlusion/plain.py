"""The plain engine: one full run of the network per window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices, Scores, score_batches
from vizcnn.models.targets import Target
from vizcnn.occlusion.windows import Windows, occlude

ScoreBatches = Iterator[tuple[Indices, Scores]]
"""Batch after batch: the indices of B windows, and the targets' scores (B, T) under them."""


@dataclass(frozen=True)
class Case:
    """One image, what covers it, and its targets.

    name: of the image, for errors.
    image, baseline: (C, H, W) in [0, 1]; a window shows the baseline instead of the image.
    targets: T of them, resolved. scores: float64 (T,), the targets' for the image as it is.
    largest: the network's largest output for the image, in magnitude, by which rounding is judged; 0 if unknown.
    """

    name: str
    image: Tensor
    baseline: Tensor
    targets: tuple[Target, ...]
    scores: Scores
    largest: float


class FullRuns:
    """Runs of the whole network under windows. layout: how images lie in memory, see `score_batches`."""

    def __init__(self, model: Model, windows: Windows, batch: int, layout: torch.memory_format) -> None:
        self.model, self.windows, self.batch, self.layout = model, windows, batch, layout

    def score(self, case: Case, indices: Indices) -> ScoreBatches:
        """The targets' scores under some of the windows. Raises NonFiniteResult."""

        def cover(some: Indices) -> Tensor:
            return occlude(case.image, case.baseline, self.windows[some])

        return score_batches(
            self.model, cover, indices, case.targets, batch=self.batch, layout=self.layout, shown=False
        )

    def score_each(self, case: Case, indices: Indices) -> dict[int, Scores]:
        """The same by window: its index, and the targets' scores (T,) under it."""
        batches = self.score(case, indices)
        return {int(i): row for some, scores in batches for i, row in zip(some, scores, strict=True)}
