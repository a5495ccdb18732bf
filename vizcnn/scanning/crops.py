"""Crops: the parts that excite a channel in its best images, as tiles of one size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from vizcnn.errors import ParameterError
from vizcnn.inputs.photo import Pixels
from vizcnn.models.terms import Unit
from vizcnn.results.photos import cut_out
from vizcnn.scanning.best import AnyIndex, Maps, find_best
from vizcnn.scanning.index import Index


def crop_best(
    index: AnyIndex, unit: Unit, count: int, size: tuple[int, int], maps: Maps
) -> Iterator[tuple[str, Pixels]]:
    """For each of a unit's best images, at most `count`: its score as text, and a tile (h, w, C) in [0, 1].

    The tile shows where the unit responds, by its map, or what the winning place of it sees, scaled to fit `size`
    (height, width) on a white ground. maps: from `read_maps`."""
    for one in find_best(index, unit, count, maps):
        yield f"{one.value:.3g}", fit(cut_out(one.photo, one.part), size)


def fit(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A white tile of a size (height, width) with a picture (h, w, C) in its middle, as large as fits."""
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    h, w = (max(1, round(side * scale)) for side in pixels.shape[:2])
    tile = np.ones((*size, pixels.shape[2]), np.float32)
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    for c in range(pixels.shape[2]):
        tile[top : top + h, left : left + w, c] = np.asarray(Image.fromarray(pixels[:, :, c]).resize((w, h)))
    return tile.clip(0, 1)


def refuse_other_network(index: Index, weights_sha256: str) -> None:
    """Raise ParameterError if an index is of a network with other weights."""
    if index.identity["model"]["weights_sha256"] != weights_sha256:
        name = index.identity["model"]["model"]
        raise ParameterError(
            f"{index.folder} is the index of another network, {name} with other weights. Scan this one"
        )
