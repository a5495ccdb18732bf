"""RISE: show the image through random masks and see which parts help the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.errors import DegenerateResult, Interrupted
from vizcnn.models.batches import answer_each
from vizcnn.models.precision import advise_precision
from vizcnn.models.scoring import Indices, Scores, differ, score_batches
from vizcnn.occlusion.windows import check_fill, make_baseline
from vizcnn.probing.attribution import Map, find_peak, heatmap
from vizcnn.probing.facts import Facts, require_reaction
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap


class Rise(Probe[Heatmap]):
    """Which parts help the answer when they are seen, whatever else is hidden?

    The image is shown through many random masks, coarse and smooth. With masks M_i (1 shows, 0 hides) and the target's
    scores f_i for the image behind them, the map's value at a pixel x is

        S(x) = sum of f_i M_i(x) / sum of M_i(x)  -  mean of f_i

    the mean score while x is seen, less the mean of all: positive (red) where seeing helps the target, negative (blue)
    where it hurts. The paper divides by the share of cells that is kept, which is the mean of all possible masks. Here
    it is the mean of those that were drawn: otherwise a pixel that happens to be shown more often would get a higher
    value, and the more so the higher the scores are. The last term moves the whole map and changes no ranking.

    A mask is a grid of cells, each shown with probability `keep`, enlarged (bilinear, align_corners=False) to one cell
    more than the image in each direction, and cut out at a random place. All images see the same masks, which the seed
    determines. After Ctrl-C an image's map is that of the masks that were run.

        >>> import vizcnn
        >>> result = vizcnn.Rise(masks=500)(vizcnn.load("tiny"), "sample:grace_hopper")
        >>> result.values.shape
        (1, 1, 64, 64)

    Of a detector's box, a target such as `dog#0`, it is D-RISE (Petsiuk et al. 2021, arXiv:2006.03204), see
    `vizcnn.models.detection`.

    Paper: Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    arXiv:1806.07421. Raises ParameterError, DegenerateResult (a target that no mask moves), NonFiniteResult.
    """

    paper: ClassVar[str] = "Petsiuk et al. 2018, arXiv:1806.07421"
    makes_maps: ClassVar[bool] = True
    needs_network: ClassVar[bool] = False

    masks: int = param(
        1000, "Masks for each image; more are slower and less noisy. The paper takes 4000 to 8000.", min=2
    )
    grid: int = param(
        7, "Cells of a mask along each side; with more, smaller parts show, and more masks are needed.", min=1
    )
    keep: float = param(0.5, "The share of a mask's cells that show the image.", min=0.01, max=0.99)
    fill: str = param(
        "model",
        "What is seen instead: model (the mean it was trained with), mean (of the image), blur, or a colour such as "
        "#7f7f7f.",
    )
    batch: int | None = param(None, "Images per forward pass; by default chosen by their size.", min=1)

    def check(self) -> None:
        check_fill("Rise: fill", self.fill)

    def rehearse(self, facts: Facts) -> str:
        return str(require_reaction(facts))

    def compute(self, subject: Subject) -> Heatmap:
        subject = subject.run()
        size = subject.size
        masks = Masks(self.masks, self.grid, self.keep, size, subject.seed)

        def make_maps(part: slice) -> list[list[Map]]:
            return [self._make_maps(subject, part.start, masks)]

        return heatmap(
            subject,
            answer_each(len(subject.inputs), make_maps, strict=subject.strict),
            meaning=lambda quantity: f"{quantity} gained when seen",
            signed=True,
            details={"masks": self.masks, "grid": self.grid, "fill": self.fill},
        )

    def _make_maps(self, subject: Subject, i: int, masks: Masks) -> list[Map]:
        """The map of each target for image i. A run has many masks of one image: more images would not fill it better.

        Raises DegenerateResult where no mask moves a target, and after Ctrl-C Interrupted with the maps so far."""
        size = tuple(subject.inputs.shape[2:])
        sums = _Sums.begin(len(subject.targets[i]), size, subject.inputs.device)
        try:
            for indices, scores in self._score_masks(subject, i, masks):
                sums.add(masks.make(indices).to(subject.inputs.device), scores - subject.scores[i])
        except KeyboardInterrupt:
            if not sums.gains:
                raise
            raise Interrupted(_to_maps(sums)) from None
        _refuse_unmoved(subject, i, sums)
        return _to_maps(sums)

    def _score_masks(self, subject: Subject, i: int, masks: Masks) -> Iterator[tuple[Indices, Scores]]:
        """The scores of image i behind the masks, batch after batch."""
        image = subject.inputs[i]  # (C, H, W)
        baseline = make_baseline(self.fill, image, subject.model.input.mean, masks.cell)  # (C, H, W)

        def show_through(indices: Indices) -> Tensor:
            return baseline + (image - baseline) * masks.make(indices)[:, None].to(image)  # (B, C, H, W)

        return score_batches(
            subject.model,
            show_through,
            np.arange(self.masks),
            subject.targets[i],
            batch=self.batch,
            layout=subject.layout,
            label="rise",
            shown=subject.progress,
        )


class Masks:
    """Random masks for images of height and width `size`, always the same for a seed.

    Only the grids are kept; a mask is made of one when it is needed.

    cell: height and width of a grid's cell in px, rounded up, so that grid + 1 cells are at least one cell larger than
        the image and a mask can be cut out up to one cell away from the corner."""

    def __init__(self, count: int, grid: int, keep: float, size: tuple[int, int], seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.size, self.cell = size, (-(-size[0] // grid), -(-size[1] // grid))
        self.grids = (torch.rand(count, grid, grid, generator=rng) < keep).float()  # (n, g, g)
        self.corners = torch.stack([torch.randint(side, (count,), generator=rng) for side in self.cell], 1)  # (n, 2)

    def make(self, indices: Indices) -> Tensor:
        """The masks of these numbers, float32 (B, H, W) in [0, 1]."""
        grids = self.grids[torch.from_numpy(indices), None]  # (B, 1, g, g)
        large = [(grids.shape[2] + 1) * side for side in self.cell]
        enlarged = F.interpolate(grids, large, mode="bilinear", align_corners=False)[:, 0]
        corners = self.corners[torch.from_numpy(indices)].tolist()
        height, width = self.size
        masks = [one[y : y + height, x : x + width] for one, (y, x) in zip(enlarged, corners, strict=True)]
        return torch.stack(masks)  # (B, H, W)


@dataclass
class _Sums:
    """Sums over the masks so far, from which the maps are computed.

    A gain is a score less that of the whole image. S is the same for gains as for scores, but gains are small numbers
    and lose less by rounding.

    weighted: the gains times the masks, float64 (T, H, W). masks: float64 (H, W). gains: of each batch, (B, T)."""

    weighted: Tensor
    masks: Tensor
    gains: list[Scores]

    @classmethod
    def begin(cls, targets: int, size: tuple[int, ...], device: torch.device) -> _Sums:
        """The sums over no masks, of so many targets and for maps of this height and width."""
        zeros = torch.zeros(targets, *size, dtype=torch.float64, device=device)
        return cls(zeros, torch.zeros_like(zeros[0]), [])

    def add(self, masks: Tensor, gains: Scores) -> None:
        """Add a batch of masks (B, H, W) and their gains (B, T)."""
        masks = masks.double()
        self.weighted += torch.einsum("bt,bhw->thw", torch.from_numpy(gains).to(masks), masks)
        self.masks += masks.sum(0)
        self.gains.append(gains)

    def compute_maps(self) -> Tensor:
        """S for each target, (T, H, W); 0 where no mask showed anything."""
        mean = torch.from_numpy(np.concatenate(self.gains).mean(0)).to(self.masks)[:, None, None]  # (T, 1, 1)
        return torch.where(self.masks > 0, self.weighted / self.masks - mean, 0.0)


def _to_maps(sums: _Sums) -> list[Map]:
    what = "being seen helps most"
    maps = [(one, find_peak(one)) for one in sums.compute_maps()]
    return [Map(one, at, what if at else "being seen helps nowhere", mark=f"where {what}") for one, at in maps]


def _refuse_unmoved(subject: Subject, i: int, sums: _Sums) -> None:
    scores = subject.scores[i] + np.concatenate(sums.gains)  # (n, T)
    moved = differ(scores, subject.scores[i], subject.largest(i), subject.inputs.dtype)
    for t in np.nonzero(~moved)[0]:
        raise DegenerateResult(
            f"no mask changes the target {subject.targets[i][t]} of {subject.photos[i].name} by more than rounding "
            f"(it stays {subject.scores[i, t]:g}): a dead unit, or one that does not see the input"
            f"{advise_precision(subject.inputs.dtype)}"
        )
