"""Geometry: boxes in images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle, in px, top left inclusive, bottom right exclusive; fractions arise by scaling."""

    top: float
    left: float
    bottom: float
    right: float

    def mapped(self, size: tuple[int, int], onto: Box) -> Box:
        """This box of an image of height and width `size`, when that image covers the box `onto` of another."""
        sy, sx = (onto.bottom - onto.top) / size[0], (onto.right - onto.left) / size[1]
        return Box(
            onto.top + self.top * sy,
            onto.left + self.left * sx,
            onto.top + self.bottom * sy,
            onto.left + self.right * sx,
        )
