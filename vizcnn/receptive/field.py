"""ReceptiveField: the rectangle of the input that each unit of a layer can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ParameterError
from vizcnn.geometry import Box

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of one layer's units, in px of the input.

    A pixel belongs to a unit's field when some path of the network leads from it to the unit, whatever the learned
    weights are. (An interpolation's fixed weight of zero is no path.) The field is the smallest rectangle around these
    pixels, for the channel that sees most.

    top, bottom: int64 (h,): units in row y see the input's rows from top[y] to before bottom[y]. Both are equal for
        units that see nothing.
    left, right: int64 (w,): the same for columns.
    size, stride, offset: (down, across), as if the padding were part of the image: the unit at row y would see `size`
        rows, the first of them offset + y * stride. So the size may exceed the input's, and an offset below zero lies
        in the padding. (Minus the offset is the "effective padding" of Araujo et al. 2019, "Computing Receptive Fields
        of Convolutional Neural Networks".) Where fields do not repeat regularly (adaptive pooling, attention), these
        are the middle unit's.
    """

    top: Rows
    bottom: Rows
    left: Rows
    right: Rows
    size: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float]

    @property
    def units(self) -> tuple[int, int]:
        """Rows and columns of units, (h, w)."""
        return len(self.top), len(self.left)

    def box(self, y: int, x: int) -> Box:
        """What the unit at row y and column x sees, in px of the input. Raises ParameterError."""
        h, w = self.units
        if not (0 <= y < h and 0 <= x < w):
            raise ParameterError(f"the layer has units 0,0 to {h - 1},{w - 1}, got {y},{x}")
        return Box(int(self.top[y]), int(self.left[x]), int(self.bottom[y]), int(self.right[x]))
