"""Heatmap: what parts of an image matter, one map per image and target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.inputs.images import Photo, to_grey
from vizcnn.results.base import Result
from vizcnn.results.drawing import dim_unseen, draw_image, draw_outline, new_figure, remove_ticks, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure, SubFigure

_PANEL = 3.6  # width of one panel in inches


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
class Heatmap(Result):
    """One map for each of N images and T targets.

    values: float32 (N, T, H, W), in input px; NaN where nothing was computed (only when partial).
    scores: float32 (N, T), each target's number for the clean image.
    meanings: per target, what one unit of the colour bar is, e.g. `logit lost when covered`.
    photos, seen: the images, and the box of each that the network saw.
    marks: per image and target, the box to point at, or None.
    findings: per image and target, one sentence.
    partial: the computation was interrupted.
    signed: values have a sign and zero is their middle; otherwise they are magnitudes from zero up.
    percentile: of the magnitudes above zero, where the colours end; values beyond are drawn in the last colour.
    """

    parts: ClassVar[tuple[type, ...]] = (Box, Mark, Prediction)

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

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`values` (N, T, H, W) and `scores` (N, T)."""
        return {"values": self.values, "scores": self.scores}

    def summary(self) -> dict[str, Any]:
        images = [self._image_summary(i) for i in range(len(self.photos))]
        return {"meanings": list(self.meanings), "partial": self.partial, "images": images}

    def _image_summary(self, i: int) -> dict[str, Any]:
        maps = [
            {
                "target": self.provenance.targets[i][t],
                "target_spec": self.provenance.target_specs[i][t],
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

    def scale(self, image: int, target: int) -> float:
        """The value at which a map's colours end. Maps of an image that mean the same share the largest of theirs."""
        alike = [t for t, meaning in enumerate(self.meanings) if meaning == self.meanings[target]]
        sizes = [np.abs(self.values[image, t]) for t in alike]
        return max(
            (float(np.nanpercentile(size[size > 0], self.percentile)) for size in sizes if (size > 0).any()),
            default=1.0,
        )

    def plot(self, ax: Axes | None = None, *, image: int = 0, target: int = 0) -> Axes:
        """Draw one map over its photograph, with its colour bar, on `ax` or on a new figure. Returns the Axes.

        Colours of signed maps are centred on zero. Maps of the same image that mean the same share their scale. Weak
        values are transparent, so that the photograph shows; the colour bar is the legend of full colours.
        """
        ax = new_figure(5.6, 4.8).add_subplot() if ax is None else ax
        self._draw(ax, image, target)
        self._bar(ax.figure, image, target, ax=ax, fraction=0.046, pad=0.03)
        return ax

    def figure(self) -> Figure:
        """A row per image: the photograph with what the network says of it, then a map per target.

        Maps that mean the same share one colour bar at the right; otherwise each has its own.
        """
        n, t = self.values.shape[:2]
        shared = len(set(self.meanings)) == 1
        tallest = min(max(photo.size[0] / photo.size[1] for photo in self.photos), 1.6)
        widths = [1.0] + [1.0 if shared else 1.25] * t + [0.05] * shared
        figure = new_figure(_PANEL * sum(widths) + 0.7, n * (_PANEL * tallest + 0.85) + 0.2)
        axes = figure.subplots(n, len(widths), squeeze=False, width_ratios=widths)
        for i in range(n):
            self._draw_photo(axes[i, 0], i)
            for j in range(t):
                self._draw(axes[i, 1 + j], i, j) if shared else self.plot(axes[i, 1 + j], image=i, target=j)
            if shared:
                self._bar(figure, i, 0, cax=axes[i, -1])
        line = self.provenance.line() + ("  PARTIAL" if self.partial else "")
        figure.supxlabel(line, fontsize=6, color="0.4")
        return figure

    def _extend(self) -> str:
        """The ends of the colour bar at which values are cut off."""
        return "neither" if self.percentile == 100 else "both" if self.signed else "max"

    def _draw_photo(self, ax: Axes, i: int) -> None:
        photo, box = self.photos[i], self.seen[i]
        draw_image(ax, photo.pixels)
        dim_unseen(ax, photo.size, box)
        said = "\n".join(f"{p.said(100, 1):>5}%  {shorten(p.label)}" for p in self.predictions[i][:3])
        ax.set_title(shorten(photo.name), fontsize=9)
        ax.set_xlabel(said, fontsize=8, loc="left", family="monospace")

    def _colours(self, i: int, t: int) -> tuple[str, Normalize]:
        from matplotlib.colors import Normalize

        end = self.scale(i, t)
        return ("RdBu_r", Normalize(-end, end)) if self.signed else ("inferno", Normalize(0, end))

    def _bar(self, figure: Figure | SubFigure, i: int, t: int, **place: Any) -> None:
        from matplotlib.cm import ScalarMappable

        cmap, norm = self._colours(i, t)
        bar = figure.colorbar(ScalarMappable(norm, cmap), extend=self._extend(), **place)
        bar.set_label(self.meanings[t])

    def _draw(self, ax: Axes, i: int, t: int) -> None:
        photo, box, values = self.photos[i], self.seen[i], self.values[i, t]
        cmap, norm = self._colours(i, t)
        ax.imshow(0.35 + 0.65 * to_grey(photo.pixels)[:, :, 0], cmap="gray", vmin=0, vmax=1)
        extent = (box.left - 0.5, box.right - 0.5, box.bottom - 0.5, box.top - 0.5)
        opacity = np.nan_to_num(np.clip(np.abs(values) / self.scale(i, t), 0, 1) ** 0.5 * 0.85)
        ax.imshow(values, cmap=cmap, norm=norm, alpha=opacity, extent=extent, interpolation="nearest")
        dim_unseen(ax, photo.size, box)
        if mark := self.marks[i][t]:
            draw_outline(ax, mark.box)
            ax.set_xlabel(mark.text, fontsize=8, loc="left")
        ax.set_title(f"{shorten(self.provenance.targets[i][t])}  {self.scores[i, t]:.3g}", fontsize=9)
        remove_ticks(ax)
