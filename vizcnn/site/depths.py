"""Depths: for each layer, or of each stage of a deep network, a few units that stand for it, all on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vizcnn.site.entries import enter_crop, enter_kernel, enter_picture
from vizcnn.site.packing import round_number
from vizcnn.site.records import Layer, Unit, Wall

MOST_LAYERS = 16
"""Layers that the page shows at most."""

UNITS, CROPS = 3, 6
"""How many units stand for a layer, and how many crops for a unit at most."""

_FEWEST_STAGES = 5  # fewer say too little of a deep network
_READABLE = 3  # rows and columns of a kernel that can be read as a picture


def choose_layers(layers: Sequence[Layer]) -> list[int]:
    """The numbers of the layers that the page shows, in the order in which they run; the output is not among them.

    Of up to 16 hidden layers all. Of more, the first and the last of each stage, which is a run of layers with maps of
    one size; where these are more than 16 or hardly any, 16 that are evenly spread."""
    hidden = [i for i, layer in enumerate(layers) if not layer.is_output]
    if len(hidden) <= MOST_LAYERS:
        return hidden
    ends = [i for i, following in pairwise(hidden) if layers[i].shape[1:] != layers[following].shape[1:]]
    stages = sorted({hidden[0], *ends, hidden[-1]})
    if _FEWEST_STAGES <= len(stages) <= MOST_LAYERS:
        return stages
    return [hidden[at] for at in np.linspace(0, len(hidden) - 1, MOST_LAYERS).round().astype(int).tolist()]


def choose_units(layer: Layer) -> tuple[int, ...]:
    """The units that stand for a layer: the first of those that do so on the overview."""
    return layer.strongest[:UNITS]


def enter_depth(i: int, layer: Layer, units: Mapping[int, Unit], wall: Wall, *, photos: bool) -> dict[str, Any]:
    """Layer number i on the page. units: those that stand for it, by number. photos: whether crops may be shown."""
    return {"layer": i, "units": [_enter_unit(k, units[k], wall, photos) for k in choose_units(layer)]}


def _enter_unit(k: int, unit: Unit, wall: Wall, photos: bool) -> dict[str, Any]:
    kernel = unit.kernel
    return {
        "unit": k,
        "best": int(wall.best_class[k]),
        "select": round_number(float(wall.selectivity[k]), 3),
        "mean": round_number(float(wall.mean[k]), 3),
        "high": round_number(unit.highest),
        "picture": enter_picture(unit.picture),
        "kernel": enter_kernel(kernel) if kernel is not None and min(kernel.shape[:2]) >= _READABLE else None,
        "crops": [enter_crop(crop) for crop in unit.crops[:CROPS]] if photos else [],
    }
