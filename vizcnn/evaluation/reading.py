"""Reading maps: what anyone may hand over as the map of an image, checked, as float64 (H, W)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import ParameterError, ShapeError
from vizcnn.evaluation.cells import Maps, resize_map
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.models.targets import Target
from vizcnn.results import Heatmap


def read_map(given: Any) -> Maps:
    """A map as float64 (H, W), of its own resolution.

    given: an array or tensor (H, W), (1, H, W) or (1, 1, H, W) of any real numbers, or a Heatmap that holds one map.
    Raises ShapeError for other shapes, and ParameterError for what holds no real numbers and for other Heatmaps."""
    if isinstance(given, Heatmap):
        (alone,) = split_heatmap(given, 1)
        return np.asarray(alone.values[0, 0], np.float64)
    values = _to_array(given)
    if values.dtype.kind not in "biuf":
        raise ParameterError(f"a map is an array or tensor of real numbers, got {_name(given, values)}")
    own = values.reshape(values.shape[values.ndim - 2 :]) if values.ndim > 2 and _is_one(values) else values
    if own.ndim != 2 or not own.size:
        remedy = " Of attributions (C, H, W) give the sum over channels: attributions.sum(-3)" * (values.ndim > 2)
        raise ShapeError(f"a map is (H, W), with a value for each part of the image, got {values.shape}.{remedy}")
    return np.asarray(own, np.float64)


def split_heatmap(given: Heatmap, count: int | None = None) -> list[Heatmap]:
    """The maps of the one image of a Heatmap, as Heatmaps with values and a target each.

    count: how many they must be. Raises ParameterError for other Heatmaps."""
    (images, targets), origin = given.values.shape[:2], given.provenance
    if images != 1:
        raise ParameterError(f"the Heatmap is of {images} images. Take one of them: heatmap.select([0])")
    if count not in (None, targets):
        raise ParameterError(
            f"the Heatmap holds maps of {targets} targets, and here {count} is needed. Make one for the target alone, "
            "or give an array: heatmap.values[0, t]"
        )
    return [
        replace(
            given,
            provenance=replace(
                origin, targets=((origin.targets[0][t],),), target_specs=((origin.target_specs[0][t],),)
            ),
            values=given.values[:, t : t + 1],
        )
        for t in range(targets)
    ]


def check_named(maps: Mapping[str, Any]) -> Mapping[str, Any]:
    """The maps by name. Raises ParameterError where there is none, or names are no texts."""
    if not maps or not all(isinstance(name, str) and name for name in maps):
        raise ParameterError(f"maps by name are a mapping from texts to maps, at least one, got {[*maps]}")
    return maps


def check_photo(given: Any, photo: Photo) -> None:
    """Raise ParameterError for a Heatmap of another image."""
    if isinstance(given, Heatmap) and given.photos[0].sha256() != photo.sha256():
        raise ParameterError(
            f"the Heatmap is of {given.photos[0].name}, whose pixels are others than those of {photo.name}. Give the "
            "image that it was made of"
        )


def check_explained(given: Heatmap, targets: tuple[Target, ...]) -> None:
    """Raise ParameterError where a Heatmap explains something else."""
    own, wanted = given.provenance.target_specs[0], tuple(one.spec for one in targets)
    if own != wanted:
        raise ParameterError(
            f"the Heatmap explains {', '.join(own)}, and the target is {', '.join(wanted)}. Give the target that it "
            "explains"
        )


def fit_map(values: Maps, size: tuple[int, int], photo: Photo, seen: Box) -> Maps:
    """The map with as many rows and columns as the input, which it spans.

    size: height and width of the input. photo, seen: the image, and the box of it that the network sees.
    Raises ShapeError for a map that spans something else, such as all of a photograph of which a part is seen."""
    own, part = values.shape, (seen.bottom - seen.top, seen.right - seen.left)
    is_whole = (round(part[0]), round(part[1])) == photo.size
    if own == photo.size and not is_whole and own != size:
        rows, columns = f"{round(seen.top)}:{round(seen.bottom)}", f"{round(seen.left)}:{round(seen.right)}"
        raise ShapeError(
            f"the map has the photograph's size, {own}, and the network sees a part of it. Give the map of this part: "
            f"map[{rows}, {columns}]"
        )
    if not any(_has_shape(own, one) for one in (size, part)):
        raise ShapeError(
            f"the map's sides are as {own[0]} to {own[1]} and those of the network's input as {size[0]} to {size[1]}: "
            "it spans another part of the image. Give a map of what the network sees, see Model.prepared"
        )
    return resize_map(values, size)


def _has_shape(own: tuple[int, ...], other: tuple[float, float]) -> bool:
    """Whether the sides are in the same relation, up to a row and a column of the map."""
    return abs(own[0] * other[1] - own[1] * other[0]) <= other[0] + other[1]


def _to_array(given: Any) -> npt.NDArray[Any]:
    if isinstance(given, Tensor):
        whole = given.detach().cpu()
        return np.asarray((whole.double() if whole.is_floating_point() else whole).numpy())
    try:
        return np.asarray(given)
    except ValueError as error:
        raise ParameterError(
            f"a map is an array or tensor of real numbers (H, W), got {type(given).__name__}"
        ) from error


def _is_one(values: npt.NDArray[Any]) -> bool:
    return set(values.shape[:-2]) == {1}


def _name(given: Any, values: npt.NDArray[Any]) -> str:
    return f"{type(given).__name__} of {values.dtype}" if values.ndim else repr(given)
