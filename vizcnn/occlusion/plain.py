"""The plain engine: one full run of the network per window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vizcnn.models.model import Model
from vizcnn.models.scoring import Scores, score_batches
from vizcnn.models.targets import Target
from vizcnn.occlusion.windows import Ints, Windows, occlude

Scored = Iterator[tuple[Ints, Scores]]
"""Batch after batch: the places of some windows among all, and the targets' scores (B, T) under these."""


@dataclass(frozen=True)
class Case:
    """One image, what covers it, and what is asked of it.

    name: of the image, for errors.
    image, cover: (C, H, W) in [0, 1]; a window shows the cover instead of the image.
    targets: T of them, resolved. scores: float64 (T,), theirs for the image as it is.
    largest: the network's largest output for it, in magnitude, by which rounding is judged; 0 where it is not known.
    """

    name: str
    image: Tensor
    cover: Tensor
    targets: tuple[Target, ...]
    scores: Scores
    largest: float


class Plain:
    """Full runs under windows. layout: how images lie in memory, see `score_batches`."""

    def __init__(self, model: Model, windows: Windows, batch: int, layout: torch.memory_format) -> None:
        self.model, self.windows, self.batch, self.layout = model, windows, batch, layout

    def score(self, case: Case, places: Ints) -> Scored:
        """The targets' scores under some of the windows. Raises NonFiniteResult."""

        def covered(chosen: Ints) -> Tensor:
            return occlude(case.image, case.cover, self.windows[chosen])

        return score_batches(
            self.model, covered, places, case.targets, batch=self.batch, layout=self.layout, shown=False
        )

    def by_place(self, case: Case, places: Ints) -> dict[int, Scores]:
        """The same as (T,) for each window's place."""
        return {int(p): row for chosen, rows in self.score(case, places) for p, row in zip(chosen, rows, strict=True)}
