"""What an ImageGrid is made of: panels of tiles, in rows, beside a photograph where they come from one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ShapeError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results.maps import Mark


def format_number(value: float) -> str:
    """A number of a picture in three digits: `0.0123`, `12.3`; large ones without an exponent: `3,641`."""
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e7 else f"{value:.3g}"


def format_score(value: float, quantity: str) -> str:
    """A target's score in three digits. A probability that would round to 1 is `>0.999`: no network is that certain.

    quantity: what the score is, or a text that names it, such as `probability lost when covered`."""
    return ">0.999" if "probability" in quantity and value >= 0.9995 else format_number(value)


@dataclass(frozen=True)
class Panel:
    """K tiles of one shape under a title.

    key: the panel's name among the saved arrays.
    values: float32 (K, h, w), or (K, h, w, 3) for RGB tiles; the raw numbers.
    channels: the number of each tile's channel in its layer.
    titles: one per tile.
    limits: per tile the values drawn darkest and brightest; equal throughout where tiles can be compared.
    meaning: what the numbers are, e.g. `weight`.
    colours: of tiles (h, w): `grey`, for limits centred on zero, or `magnitude`. RGB tiles are mid-grey at zero.
        `picture`: tiles of either kind are pictures, drawn as they are, from black at 0 to white at 1.
    columns: tiles in a line; None for as many as leave few gaps.
    side: the most that the longer side of a tile measures, in inches.

    Raises ShapeError where these do not fit each other.
    """

    key: str
    title: str
    values: npt.NDArray[np.float32]
    channels: tuple[int, ...]
    titles: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]
    meaning: str
    colours: Literal["grey", "magnitude", "picture"] = "grey"
    columns: int | None = None
    side: float = 2.0

    def __post_init__(self) -> None:
        if not (self.values.ndim == 3 or self.is_rgb) or not self.values.size:
            raise ShapeError(f"tiles are (K, h, w) or (K, h, w, 3), got {self.values.shape}. Stack them first")
        counts = [len(each) for each in (self.values, self.channels, self.titles, self.limits)]
        if len(set(counts)) > 1:
            raise ShapeError(f"each tile needs a channel, a title and limits, got {counts} of tiles and of these")
        if bad := [limits for limits in self.limits if not limits[1] > limits[0]]:
            raise ShapeError(f"limits are a lower and a higher number, got {bad[0]}. Choose any for tiles of one value")

    @property
    def is_rgb(self) -> bool:
        return self.values.ndim == 4 and self.values.shape[3] == 3

    @property
    def shared(self) -> bool:
        """Whether all tiles are drawn with one scale, so that their brightness can be compared."""
        return len(set(self.limits)) == 1

    @property
    def has_bar(self) -> bool:
        """Whether one colour bar is the legend of all tiles."""
        return self.shared and not self.is_rgb and self.colours != "picture"

    def scale(self) -> str:
        """How numbers became brightness, in words."""
        if self.colours == "picture":
            return self.meaning
        low, high = self.limits[0]
        ends = "each its own, up to its largest magnitude"
        if self.shared:
            ends = f"{format_number(low)} to {format_number(high)}" + " for all" * (len(self.values) > 1)
        return f"{self.meaning}: {ends}" + (", zero is mid-grey" if self.is_rgb or self.colours == "grey" else "")

    def select(self, tiles: slice) -> Panel:
        """The panel with only these of its tiles."""
        parts = {name: getattr(self, name)[tiles] for name in ("values", "channels", "titles", "limits")}
        return replace(self, **parts)

    def summary(self) -> dict[str, Any]:
        tiles = [
            {"channel": c, "title": t, "lowest": float(v.min()), "highest": float(v.max()), "limits": list(limits)}
            for c, t, v, limits in zip(self.channels, self.titles, self.values, self.limits, strict=True)
        ]
        return {"key": self.key, "title": self.title, "scale": self.scale(), "tiles": tiles}


@dataclass(frozen=True)
class Scene:
    """A photograph with a box for each of the panels beside it.

    seen: the box of the photograph that the network saw.
    marks: one per panel, in px of the photograph; None for a panel without a box.
    """

    photo: Photo
    seen: Box
    marks: tuple[Mark | None, ...]

    def summary(self) -> dict[str, Any]:
        marks = [mark and {"text": mark.text, "box": asdict(mark.box)} for mark in self.marks]
        return {"image": self.photo.name, "marks": marks}


@dataclass(frozen=True)
class Row:
    """Panels that belong together: side by side, or below each other to the right of their photograph.

    names: what the panels are called where they stand tile by tile: the first tile of each, the second of each, and so
        on. Empty where each panel stands by itself.
    """

    panels: tuple[Panel, ...]
    scene: Scene | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(panel.values) for panel in self.panels}
        if self.names and (len(self.names) != len(self.panels) or len(counts) > 1 or self.scene):
            raise ShapeError(
                f"panels that stand tile by tile have a name each, as many tiles and no photograph, got {self.names} "
                f"for {len(self.panels)} panels of {sorted(counts)} tiles"
            )

    def summary(self) -> dict[str, Any]:
        scene = self.scene.summary() if self.scene else {}
        return {**scene, "panels": [panel.summary() for panel in self.panels]}
