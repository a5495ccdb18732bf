"""Calibration: how far from a window its change still matters, layer by layer (an approximation)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.occlusion.incremental.engine import Engine, each_value
from vizcnn.occlusion.incremental.regions import Reach, Region, middles
from vizcnn.occlusion.incremental.space import Sliding
from vizcnn.occlusion.windows import Windows, occluded

Energies = npt.NDArray[np.float64]


@torch.no_grad()
def calibrated(engine: Engine, image: Tensor, cover: Tensor, windows: Windows, tolerance: float) -> dict[int, Reach]:
    """For each sliding step the places around a window's middle that hold all but `tolerance` of the change.

    The change's size is its L2 norm over the whole map, measured in full runs of the image (C, H, W) under a few
    windows; along each axis the rows or columns beyond the reach hold at most that share of it.
    """
    touched, slides = engine.touched(windows), _sliding(engine)
    clean, changed = _runs(engine, image, cover, windows, slides)
    return {
        value: _reach((there - here).float(), touched[value], touched[0], tolerance)
        for (value, here), (_, there) in zip(clean, changed, strict=True)
        if value in touched
    }


def _sliding(engine: Engine) -> set[int]:
    return {
        step.outputs[0]
        for step, manner in zip(engine.body, engine.layout.manners, strict=False)
        if isinstance(manner, Sliding)
    }


def _runs(
    engine: Engine, image: Tensor, cover: Tensor, windows: Windows, wanted: set[int]
) -> tuple[Iterator[tuple[int, Tensor]], Iterator[tuple[int, Tensor]]]:
    both = image[None], occluded(image, cover, windows)
    runs = (each_value(engine, images.contiguous(memory_format=torch.channels_last)) for images in both)
    first, second = (((v, t) for v, t in run if v in wanted) for run in runs)
    return first, second


def _reach(change: Tensor, region: Region, image: Region, tolerance: float) -> Reach:
    """The largest reach that any of the windows needs, (before, after) down and across."""
    energy = change.square().sum(1).double().cpu().numpy()  # (B, H, W)
    down = _along(energy.sum(2), middles(image.rows, image, region, 0), tolerance)
    across = _along(energy.sum(1), middles(image.columns, image, region, 1), tolerance)
    return down, across


def _along(energy: Energies, middles: npt.NDArray[np.int64], tolerance: float) -> tuple[int, int]:
    """energy: (B, places). The fewest places to both sides of the middles that leave out at most tolerance² of it."""
    farthest = 0
    for line, middle in zip(energy, middles, strict=True):
        apart = np.abs(np.arange(len(line)) - middle)
        outside = np.array([line[apart > r].sum() for r in range(len(line))])
        farthest = max(farthest, int(np.argmax(outside <= tolerance**2 * line.sum())))
    return farthest, farthest
