"""Coverings: what the targets of one image lose when parts of it are covered, asked once for all maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.evaluation.cells import enlarge_cells
from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices, Scores, score_batches
from vizcnn.models.targets import Target
from vizcnn.occlusion.windows import make_baseline

GRID, HALVES = 6, 64


@dataclass(frozen=True)
class Coverings:
    """What was covered in one image, and what it cost.

    covered: bool (K, rows, columns), the cells of a grid that were covered together: first each cell alone, then random
        halves, in pairs of which the second covers what the first leaves.
    drops: float64 (K, T), each target's score for the image less its score under the covering.
    scores: float64 (T,), the targets' for the image as it is.
    runs: of the network, with that of the image as it is.
    """

    covered: npt.NDArray[np.bool_]
    drops: Scores
    scores: Scores
    runs: int

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of cells."""
        return self.covered.shape[1], self.covered.shape[2]

    @property
    def alone(self) -> int:
        """How many of the coverings, the first ones, cover one cell."""
        return self.grid[0] * self.grid[1]


def cover_image(
    model: Model,
    image: Tensor,
    targets: Sequence[Target],
    scores: Scores,
    *,
    halves: int = HALVES,
    fill: str = "blur",
    seed: int = 0,
    batch: int | None = None,
    layout: torch.memory_format | None = None,
    shown: bool = True,
) -> Coverings:
    """Cover the cells of a 6 x 6 grid, each alone and then random halves of them, and score the targets each time.

    image: (C, H, W) in [0, 1]. targets: resolved. scores: float64 (T,), theirs for the image as it is.
    halves: how many random halves, an even number. fill: what covers, as for occlusion.
    batch, layout, shown: as for `score_batches`. The network should be borrowed meanwhile."""
    covered = choose_coverings(choose_grid(image), halves, seed)
    cover = make_cover(model, image, fill)

    def alter(indices: Indices) -> Tensor:
        return cover(covered[indices])  # (B, C, H, W)

    found = np.empty((len(covered), len(targets)))
    for indices, some in score_batches(
        model, alter, np.arange(len(covered)), targets, batch=batch, layout=layout, label="trust", shown=shown
    ):
        found[indices] = some
    return Coverings(covered, scores - found, scores, len(covered) + 1)


def choose_grid(image: Tensor) -> tuple[int, int]:
    """The rows and columns of cells into which an image (C, H, W) is cut: 6 x 6, or as many as it has px."""
    return min(GRID, image.shape[1]), min(GRID, image.shape[2])


def make_cover(model: Model, image: Tensor, fill: str = "blur") -> Callable[[npt.NDArray[np.bool_]], Tensor]:
    """A function from cells that are covered, bool (B, rows, columns), to the image (C, H, W) with each of these
    coverings, (B, C, H, W). fill: what covers, as for occlusion."""
    size = (image.shape[1], image.shape[2])
    side = max(1, min(size) // 5)
    baseline = make_baseline(fill, image, model.input.mean, (side, side))  # (C, H, W)

    def cover(cells: npt.NDArray[np.bool_]) -> Tensor:
        masks = torch.from_numpy(enlarge_cells(cells, size)).to(image.device)  # (B, H, W)
        return torch.where(masks[:, None], baseline, image)  # (B, C, H, W)

    return cover


def choose_coverings(grid: tuple[int, int], halves: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which cells of a grid are covered together: each alone, then pairs of random halves, (cells + halves, rows,
    columns)."""
    cells, rng = grid[0] * grid[1], np.random.default_rng(seed)
    covered = np.zeros((cells + halves, cells), bool)
    covered[:cells] = np.eye(cells, dtype=bool)
    for i in range(cells, cells + halves, 2):
        covered[i, rng.permutation(cells)[: cells // 2]] = True
        covered[i + 1 : i + 2] = ~covered[i]
    return covered.reshape(-1, *grid)
