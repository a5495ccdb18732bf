"""Coverings: what the targets of one image lose when parts of it are covered, asked once for all maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn import progress
from vizcnn.evaluation.cells import enlarge_cells, split
from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices, Scores, differ, score_batches
from vizcnn.models.targets import Target
from vizcnn.occlusion import Case, Sweep
from vizcnn.occlusion.windows import make_baseline
from vizcnn.process import ignore_warnings

GRID, HALVES = 6, 64


@dataclass(frozen=True)
class Coverings:
    """What was covered in one image, and what it cost.

    covered: bool (K, rows, columns), the cells of a grid that were covered together: first each cell alone, then random
        halves, in pairs of which the second covers what the first leaves.
    drops: float64 (K, T), each target's score for the image less its score under the covering. All 0 where no cell, or
        no half, changes the target by more than rounding, which would have ranks like anything else.
    scores: float64 (T,), the targets' for the image as it is.
    runs: of the network, with that of the image as it is. Of those for one cell, only what the cell can change may have
        been computed.
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
    largest: float = 0.0,
    halves: int = HALVES,
    fill: str = "blur",
    seed: int = 0,
    batch: int | None = None,
    layout: torch.memory_format | None = None,
    shown: bool = True,
) -> Coverings:
    """Cover the cells of a 6 x 6 grid, each alone and then random halves of them, and score the targets each time.

    Of cells alone the incremental engine of occlusion computes what they can change, where that saves enough; it checks
    itself against full runs, and falls back on these.
    image: (C, H, W) in [0, 1]. targets: resolved. scores: float64 (T,), theirs for the image as it is.
    largest: the magnitude of the network's largest output for the image, by which rounding is judged too; 0 if unknown.
    halves: how many random halves, an even number. fill: what covers, as for occlusion.
    batch, layout, shown: as for `score_batches`. The network should be borrowed meanwhile."""
    covered = choose_coverings(choose_grid(image), halves, seed)
    cover = make_cover(model, image, fill)

    def alter(indices: Indices) -> Tensor:
        return cover(covered[indices])  # (B, C, H, W)

    found, cells = np.empty((len(covered), len(targets))), covered.shape[1] * covered.shape[2]
    case = Case("", image, _make_baseline(model, image, fill), tuple(targets), scores, largest)
    alone = _score_alone(model, case, covered.shape[1:], batch, layout, shown=shown)
    if alone is not None:
        found[:cells] = alone
    rest = np.arange(0 if alone is None else cells, len(covered))
    runs = score_batches(model, alter, rest, targets, batch=batch, layout=layout, label="trust", shown=shown)
    for indices, some in runs:
        found[indices] = some
    drops = scores - found  # (K, T)
    for part in (slice(cells), slice(cells, None)):
        if len(found[part]):
            drops[part, ~differ(found[part], scores, largest, image.dtype)] = 0
    return Coverings(covered, drops, scores, len(covered) + 1)


# Recording the network and checking four of so few windows costs what is saved: of small images, where cells are small
# beside what units see, and above this share of the FLOPs of full runs. Else 12 to 23% of all runs' time are saved.
_SMALLEST, _LARGEST_SHARE = 128, 0.7  # px, share


def _score_alone(
    model: Model,
    case: Case,
    grid: tuple[int, int],
    batch: int | None,
    layout: torch.memory_format | None,
    *,
    shown: bool,
) -> Scores | None:
    """The targets' scores when each cell alone is covered, (cells, T), by the incremental engine; None where it would
    not save much, and full runs are as fast."""
    size = (case.image.shape[1], case.image.shape[2])
    if min(size) < _SMALLEST:
        return None
    rows, columns = (np.stack([edges[:-1], edges[1:]], 1) for edges in map(split, size, grid))  # (parts, 2)
    windows = np.hstack([rows.repeat(len(columns), 0), np.tile(columns, (len(rows), 1))])  # (cells, 4)
    with ignore_warnings("Occlusion runs the network in full"):  # nobody has asked for one engine or the other
        sweep = Sweep(
            model,
            [case],
            windows,
            batch=batch,
            layout=layout or torch.contiguous_format,
            largest_share=_LARGEST_SHARE,
        )
        if sweep.incremental is None:
            return None
        found = np.empty((len(windows), len(case.targets)))
        with progress.bar(len(windows), "trust", "image", shown=shown) as bar:
            for indices, some in sweep.score(case):
                found[indices] = some
                bar.update(len(indices))
    return found


def choose_grid(image: Tensor) -> tuple[int, int]:
    """The rows and columns of cells into which an image (C, H, W) is cut: 6 x 6, or as many as it has px."""
    return min(GRID, image.shape[1]), min(GRID, image.shape[2])


def make_cover(model: Model, image: Tensor, fill: str = "blur") -> Callable[[npt.NDArray[np.bool_]], Tensor]:
    """A function from cells that are covered, bool (B, rows, columns), to the image (C, H, W) with each of these
    coverings, (B, C, H, W). fill: what covers, as for occlusion."""
    size, baseline = (image.shape[1], image.shape[2]), _make_baseline(model, image, fill)

    def cover(cells: npt.NDArray[np.bool_]) -> Tensor:
        masks = torch.from_numpy(enlarge_cells(cells, size)).to(image.device)  # (B, H, W)
        return torch.where(masks[:, None], baseline, image)  # (B, C, H, W)

    return cover


def _make_baseline(model: Model, image: Tensor, fill: str) -> Tensor:
    """What shows where an image (C, H, W) is covered, (C, H, W): cells are blurred as windows of their size are."""
    side = max(1, min(image.shape[1:]) // 5)
    return make_baseline(fill, image, model.input.mean, (side, side))


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
