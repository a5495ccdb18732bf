"""Crops: the parts of a channel's best images that excite it, as tiles of one size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from vizcnn.errors import ParameterError
from vizcnn.models.targets import Unit
from vizcnn.results.photos import Pixels, cut_out
from vizcnn.scanning.index import Index
from vizcnn.scanning.known import Known, best


def crops(known: Known, unit: Unit, count: int, size: tuple[int, int]) -> Iterator[tuple[str, Pixels]]:
    """For each of a unit's best images, at most `count`, its value and what the winning unit sees: (h, w, C) in [0, 1].

    The part is scaled to fit `size` (height, width), and stands on white where it has another shape."""
    for one in best(known, unit, count):
        yield f"{one.value:.3g}", fitted(cut_out(one.photo, one.box or one.seen), size)


def fitted(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels (h, w, C) scaled to the largest that fits a height and width, in the middle of a white tile."""
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    h, w = (max(1, round(side * scale)) for side in pixels.shape[:2])
    tile = np.ones((*size, pixels.shape[2]), np.float32)
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    for c in range(pixels.shape[2]):
        tile[top : top + h, left : left + w, c] = np.asarray(Image.fromarray(pixels[:, :, c]).resize((w, h)))
    return tile.clip(0, 1)


def refuse_other_network(index: Index, weights_sha256: str) -> None:
    """Raise ParameterError for the index of a network with other weights."""
    if index.identity["model"]["weights_sha256"] != weights_sha256:
        name = index.identity["model"]["model"]
        raise ParameterError(
            f"{index.folder} is the index of another network, {name} with other weights. Scan this one"
        )
