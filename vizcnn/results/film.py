"""Film: an ImageGrid of states that follow each other, such as a network's filters while it was trained."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.results.grid import ImageGrid
from vizcnn.results.panels import Row
from vizcnn.results.picture import animate


@dataclass(frozen=True)
class Film(ImageGrid):
    """Panels of several states side by side, as an ImageGrid; saved as .gif one after the other.

    frames: for each state, in their order in time, the row that is drawn while it is shown.
    """

    frames: tuple[Row, ...]

    def _write(self, file: Path, kind: str) -> None:
        if kind == ".gif":
            animate(_make_even([self._draw_frame(row) for row in self.frames]), file, self._origin())
        else:
            super()._write(file, kind)

    def _draw_frame(self, row: Row) -> npt.NDArray[np.uint8]:
        """A whole picture of one row, uint8 (H, W, 3)."""
        drawn = ImageGrid(self.provenance, (row,), ())._png()
        return np.array(Image.open(io.BytesIO(drawn)).convert("RGB"))


def _make_even(frames: list[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
    """Frames of one size: a longer name may make one of them higher or wider, and the others get white there."""
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    return [
        np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), constant_values=255)
        for frame in frames
    ]
