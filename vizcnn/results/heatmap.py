"""Heatmap: what parts of an image matter, one map per image and target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vizcnn.images import Photo, grey
from vizcnn.model import Box
from vizcnn.results.base import Result
from vizcnn.results.drawing import dim_unseen, new_figure, no_ticks, outline, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_PANEL = 3.6  # width of one panel in inches


@dataclass(frozen=True)
class Prediction:
    """A class that the network names for an image, with its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Mark:
    """A box worth pointing at, in px of the photograph."""

    box: Box
    text: str


@dataclass(frozen=True)
class Heatmap(Result):
    """One map for each of N images and T targets.

    values: float32 (N, T, H, W), in input px, signed; NaN where nothing was computed (only when partial).
    scores: float32 (N, T), each target's number for the clean image.
    meaning: what one unit of the colour bar is, e.g. `logit lost when covered`.
    photos, seen: the images, and the box of each that the network saw.
    marks: per image and target, the box to point at, or None.
    findings: per image and target, one sentence.
    partial: the computation was interrupted.
    """

    values: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    meaning: str
    photos: tuple[Photo, ...]
    seen: tuple[Box, ...]
    predictions: tuple[tuple[Prediction, ...], ...]
    marks: tuple[tuple[Mark | None, ...], ...]
    findings: tuple[tuple[str, ...], ...]
    partial: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`values` (N, T, H, W) and `scores` (N, T)."""
        return {"values": self.values, "scores": self.scores}

    def summary(self) -> dict[str, Any]:
        images = [self._image_summary(i) for i in range(len(self.photos))]
        return {"meaning": self.meaning, "partial": self.partial, "images": images}

    def _image_summary(self, i: int) -> dict[str, Any]:
        maps = [
            {
                "target": self.provenance.targets[i][t],
                "score": float(self.scores[i, t]),
                "highest": float(np.nanmax(self.values[i, t])),
                "lowest": float(np.nanmin(self.values[i, t])),
                "finding": self.findings[i][t],
                "box": asdict(mark.box) if (mark := self.marks[i][t]) else None,
            }
            for t in range(self.values.shape[1])
        ]
        return {"name": self.photos[i].name, "predictions": [asdict(p) for p in self.predictions[i]], "maps": maps}

    def describe(self) -> str:
        lines = [
            f"{photo.name}: {finding}"
            for photo, findings in zip(self.photos, self.findings, strict=True)
            for finding in findings
        ]
        return "\n".join(lines + ["Interrupted: the map is partial."] * self.partial)

    def scale(self, image: int) -> float:
        """The colour scale's end for all maps of one image: the largest magnitude among them."""
        return float(np.nanmax(np.abs(self.values[image]))) or 1.0

    def plot(self, ax: Axes | None = None, *, image: int = 0, target: int = 0) -> Axes:
        """Draw one map over its photograph, on `ax` or on a new figure. Returns the Axes.

        Colours are centred on zero and share their scale with the other maps of the same image. Weak values are
        transparent, so that the photograph shows; the colour bar is the legend of full colours.
        """
        ax = new_figure(5.6, 4.8).add_subplot() if ax is None else ax
        bar = ax.figure.colorbar(self._draw(ax, image, target), ax=ax, fraction=0.046, pad=0.03)
        bar.set_label(self.meaning)
        return ax

    def figure(self) -> Figure:
        """A row per image: the photograph with what the network says of it, a map per target, their colour bar."""
        n, t = self.values.shape[:2]
        tallest = min(max(photo.size[0] / photo.size[1] for photo in self.photos), 1.6)
        figure = new_figure(_PANEL * (t + 1) + 0.9, n * (_PANEL * tallest + 0.85) + 0.2)
        axes = figure.subplots(n, t + 2, squeeze=False, width_ratios=[1] * (t + 1) + [0.05])
        for i in range(n):
            self._draw_photo(axes[i, 0], i)
            colours = [self._draw(axes[i, 1 + j], i, j) for j in range(t)]
            figure.colorbar(colours[0], cax=axes[i, -1]).set_label(self.meaning)
        figure.supxlabel(self.provenance.line() + ("  PARTIAL" if self.partial else ""), fontsize=6, color="0.4")
        return figure

    def _draw_photo(self, ax: Axes, i: int) -> None:
        photo, box = self.photos[i], self.seen[i]
        ax.imshow(shown(photo), cmap="gray", vmin=0, vmax=1)
        dim_unseen(ax, photo, box)
        said = "\n".join(f"{p.probability:6.1%}  {p.label}" for p in self.predictions[i][:3])
        ax.set_title(photo.name, fontsize=9)
        ax.set_xlabel(said, fontsize=8, loc="left", family="monospace")
        no_ticks(ax)

    def _draw(self, ax: Axes, i: int, t: int) -> ScalarMappable:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        photo, box, values, end = self.photos[i], self.seen[i], self.values[i, t], self.scale(i)
        ax.imshow(0.35 + 0.65 * grey(photo.pixels)[:, :, 0], cmap="gray", vmin=0, vmax=1)
        extent = (box.left - 0.5, box.right - 0.5, box.bottom - 0.5, box.top - 0.5)
        opacity = np.nan_to_num(np.clip(np.abs(values) / end, 0, 1) ** 0.5 * 0.85)
        norm = Normalize(-end, end)
        ax.imshow(values, cmap="RdBu_r", norm=norm, alpha=opacity, extent=extent, interpolation="nearest")
        dim_unseen(ax, photo, box)
        if mark := self.marks[i][t]:
            outline(ax, mark.box)
            ax.set_xlabel(mark.text, fontsize=8, loc="left")
        ax.set_title(f"{self.provenance.targets[i][t]}  {self.scores[i, t]:.2f}", fontsize=9)
        no_ticks(ax)
        return ScalarMappable(norm, "RdBu_r")
