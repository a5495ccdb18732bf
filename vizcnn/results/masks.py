"""Masks: the part of an image where a channel responds, from its activation map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Mask:
    """Where a channel responds in an image: its activation map, enlarged to what the network saw, exceeds a level.

    activations: float32 (h, w), the map at the layer's own size. level: what it must exceed.
    size: height and width of the network's input in px, to which the map is enlarged.
    box: around the connected part of the mask that holds the highest value, in px of the photograph.
    """

    activations: Map
    level: float
    size: tuple[int, int]
    box: Box

    def cover(self) -> npt.NDArray[np.bool_]:
        """Which px of the network's input are in the mask, (H, W)."""
        above: npt.NDArray[np.bool_] = enlarge(self.activations, self.size) > self.level
        return above


def make_mask(activations: Map, mean: float, size: tuple[int, int], seen: Box) -> Mask | None:
    """The mask of an activation map (h, w), at the level halfway from the channel's mean to the map's highest value.

        level = (mean + max(map)) / 2        mask = enlarge(map, size) > level

    mean: of the channel over the whole data set, so that behind a ReLU, where most of it is zero, the level is about
        half of the maximum, and that a channel which is shifted or scaled has the same mask.
    size: height and width of the network's input in px. seen: the part of the photograph that the input shows, in px.

    None where no px exceeds the level: the channel responds less than on average, or its only high places are smaller
    than a px.

    Network dissection (Bau et al. 2017, arXiv:1704.05796) makes such masks with two differences. Its level is the one
    that a channel exceeds at 0.5% of all places of a data set, which a scan does not know, and at which a mask can be
    empty. And it puts a map's places at the centres of receptive fields, where this spreads them evenly, as `cam` does;
    the pixels that move a unit most lie between the two."""
    from scipy.ndimage import label

    large, level = enlarge(activations, size), (mean + float(activations.max())) / 2
    parts, _ = label(large > level, np.ones((3, 3)))  # corners touch too
    strongest = parts.flat[large.argmax()]
    box = Box.around(parts == strongest) if strongest else None
    return None if box is None else Mask(activations, level, size, box.map_onto(size, seen))


def enlarge(values: Map, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A map (h, w) at another height and width, bilinearly, as `torch.nn.functional.interpolate` does it with
    `align_corners=False`.

    Each axis is a weighted sum of the two nearest places, whose middles lie evenly: `rows @ values @ columns.T`."""
    rows, columns = (_weigh_places(m, n) for m, n in zip(values.shape, size, strict=True))
    large: npt.NDArray[np.float64] = rows @ values.astype(np.float64) @ columns.T  # (H, W)
    return large


def _weigh_places(places: int, length: int) -> npt.NDArray[np.float64]:
    """The weight that each of so many places has at each px along an axis, (length, places)."""
    at = (np.arange(length) + 0.5) * places / length - 0.5  # (length,), beyond the outer places their own value holds
    return np.stack([np.interp(at, np.arange(places), one) for one in np.eye(places)], 1)
