"""Repeats: images that show the same picture as another one, in place, or moved by some px.

A picture that a folder has several times lies in both halves, and every part of it is copied px: parts of an object
would be proven as tags are. So each picture counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor

from vizcnn.models.scoring import Indices

_CELLS = 16
"""Along each side, of the grid whose cells are compared."""

_NEAR = 0.4
"""How far cells of the same picture may differ, in standard deviations of its cells.

Files that were saved anew as JPEG of quality 75 differ by 0.2 in the median of digits and 0.1 in that of photographs.
The two most alike of 10,000 handwritten digits, which nobody wrote twice, differ by 0.49."""

_LEAST_DEVIATION = 0.04  # of cells: a plain image repeats only what is nearly its colour

_AT_ONCE = 256  # images that are made small


def find_repeats(images: Tensor, groups: Sequence[Indices]) -> npt.NDArray[np.int64]:
    """For each of the images (N, C, H, W), floats in [0, 1] or bytes, the one that it repeats: (N,), -1 for none.

    groups: images that are compared with each other; of the same picture the first of a group counts."""
    repeated = np.full(len(images), -1, np.int64)
    for group in groups:
        if len(group) < 2:
            continue
        cells = np.concatenate([_average_cells(images[torch.from_numpy(part)]) for part in _split(group)])  # (n, k)
        tree, limits = KDTree(cells), _tolerate(cells)
        for i, one in enumerate(group):
            if repeated[one] < 0:
                near = np.array(tree.query_ball_point(cells[i], limits[i], p=np.inf), np.int64)
                later = group[near[near > i]]
                repeated[later[repeated[later] < 0]] = one
    return repeated


def keep_distinct(images: Tensor, corners: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Those of the images (n, C, H, W) that show a picture that none before them shows, moved as from corner to corner.

    Where offcuts of one photograph are laid upon each other by a part that they share, the rest agrees, too. What was
    added to different photographs agrees alone."""
    kept: list[int] = []
    for i, (image, corner) in enumerate(zip(images, corners, strict=True)):
        if not any(_is_moved(image, images[k], corner[0] - corners[k][0], corner[1] - corners[k][1]) for k in kept):
            kept.append(i)
            yield i


def _is_moved(image: Tensor, other: Tensor, down: int, right: int) -> bool:
    """Whether an image (C, H, W) is another one, so many px further down and to the right."""
    height, width = image.shape[1:]
    ours, theirs = (
        one[:, max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
        for one, y, x in ((image, down, right), (other, -down, -right))
    )
    cells = _average_cells(torch.stack([ours, theirs]))  # (2, k)
    return bool(np.abs(cells[0] - cells[1]).max() <= _tolerate(cells).min())


def _tolerate(cells: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far each cell of the same picture may be from those of each image (n, k): (n,)."""
    return np.asarray(_NEAR * cells.std(1).clip(_LEAST_DEVIATION))


def _split(group: Indices) -> list[Indices]:
    return np.array_split(group, -(-len(group) // _AT_ONCE))


def _average_cells(images: Tensor) -> npt.NDArray[np.float32]:
    """The means of the cells of images (n, C, H, W), in [0, 1]: (n, k)."""
    floats = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    size = (min(_CELLS, images.shape[2]), min(_CELLS, images.shape[3]))
    return np.asarray(F.adaptive_avg_pool2d(floats, size).flatten(1).numpy())
