"""Geometry: boxes in images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Box:
    """A rectangle, in px, top left inclusive, bottom right exclusive; fractions arise by scaling."""

    top: float
    left: float
    bottom: float
    right: float

    @staticmethod
    def around(mask: Any) -> Box | None:
        """The smallest box that holds whatever is true, or not zero, in a mask (H, W), an array or a tensor; None where
        nothing is."""
        rows, columns = ([at for at, hit in enumerate(mask.any(axis).tolist()) if hit] for axis in (1, 0))
        return Box(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else None

    def map_onto(self, size: tuple[int, int], onto: Box) -> Box:
        """This box of an image of height and width `size`, when that image covers the box `onto` of another."""
        sy, sx = (onto.bottom - onto.top) / size[0], (onto.right - onto.left) / size[1]
        return Box(
            onto.top + self.top * sy,
            onto.left + self.left * sx,
            onto.top + self.bottom * sy,
            onto.left + self.right * sx,
        )
