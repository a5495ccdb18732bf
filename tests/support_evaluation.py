"""Networks and maps of which the tests of evaluation know what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import vizcnn
from vizcnn.evaluation import Coverings, cover_image
from vizcnn.models.clean import run_clean

Maps = npt.NDArray[np.float64]


class Regions(nn.Module):
    """Four classes, each 40 times the mean of a quarter of the image, weighted by a bump in the quarter's middle; and
    `same`, which is 1 for every image."""

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.from_numpy(np.stack([bump(tuple(x.shape[2:]), k) for k in range(4)])).to(x)  # (4, H, W)
        sums = torch.einsum("nchw,khw->nk", x, weights) * 40 / (x.shape[1] * x.shape[2] * x.shape[3])
        return torch.cat([sums, torch.ones_like(sums[:, :1])], 1)  # (N, 5)


class Counting(nn.Module):
    """Another network, and how many images it has seen."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.images = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        out: Tensor = self.inner(x)
        return out


def bump(size: tuple[int, ...], quarter: int) -> Maps:
    """A bump in the middle of a quarter (upper left, upper right, lower left, lower right), zero in the others."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((y > height / 2) == (quarter > 1)) & ((x > width / 2) == (quarter % 2 == 1))
    down, across = (0.25 + 0.5 * (quarter > 1)) * height, (0.25 + 0.5 * (quarter % 2)) * width
    found: Maps = inside * np.exp(-(((y - down) / height) ** 2 + ((x - across) / width) ** 2) / 0.02)
    return found


def regions(size: Any = (48, 48), channels: int = 3, network: nn.Module | None = None) -> vizcnn.Model:
    labels = ["upper left", "upper right", "lower left", "lower right", "same"]
    return vizcnn.Model(network or Regions(), size=size, channels=channels, labels=labels, name="regions")


def cover(model: vizcnn.Model, image: Tensor, targets: Any, **options: Any) -> Coverings:
    """The coverings of an image (C, H, W) for some targets, as the core makes them."""
    wanted = tuple(vizcnn.target(one).resolved(model) for one in targets)
    with model.borrowed(), torch.no_grad():
        clean = run_clean(model, image[None], wanted)
        scores, layout = clean.scores[0], clean.layout
        return cover_image(model, image, clean.targets[0], scores, layout=layout, shown=False, **options)
