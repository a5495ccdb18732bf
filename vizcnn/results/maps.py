"""What heatmaps hold, and what their drawers need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results.base import Result
from vizcnn.results.trust import Trust


@dataclass(frozen=True)
class Prediction:
    """A class that the network names for an image, with its probability."""

    label: str
    probability: float

    def said(self, whole: int = 1, digits: int = 2) -> str:
        """The probability as text, as a share of 1 or of 100: `0.43`, or `43.1` for (100, 1).

        What would round to 0 or to the whole is given as `<0.01` or `>0.99`: no network is that certain."""
        value, least = self.probability * whole, 10.0**-digits
        if value < least / 2:
            return f"<{least:.{digits}f}"
        return f">{whole - least:.{digits}f}" if value > whole - least / 2 else f"{value:.{digits}f}"


@dataclass(frozen=True)
class Mark:
    """A box worth pointing at, in px of the photograph."""

    box: Box
    text: str


@dataclass(frozen=True)
class Maps(Result):
    """The fields of a `Heatmap`, which says what they are: its drawers know these, and it knows its drawers."""

    parts: ClassVar[tuple[type, ...]] = (Box, Mark, Prediction, Trust)

    values: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    meanings: tuple[str, ...]
    photos: tuple[Photo, ...]
    seen: tuple[Box, ...]
    predictions: tuple[tuple[Prediction, ...], ...]
    marks: tuple[tuple[Mark | None, ...], ...]
    findings: tuple[tuple[str, ...], ...]
    partial: bool = False
    signed: bool = True
    percentile: float = 100.0
    second_marks: tuple[tuple[Mark | None, ...], ...] = ()
    target_marks: tuple[tuple[Mark | None, ...], ...] = ()
    trust: tuple[tuple[Trust | None, ...], ...] = ()
