"""Exemplars: the photographs that excite each channel most, with what the winning unit sees of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.geometry import Box
from vizcnn.inputs.images import Photo
from vizcnn.results.base import Result
from vizcnn.results.drawing import dim_unseen, new_figure, no_ticks, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Pixels = npt.NDArray[np.float32]

_SIDE = 256  # px, the longer side of a photograph or crop that a result keeps
_CELL = 1.25  # inches, a photograph or crop
_TITLE, _LABEL, _NAME = 0.3, 0.34, 17  # inches over a row and under a photograph; letters of a label
_PAPER = 0.047  # inches per letter of the line below


def reduced(pixels: Pixels, side: int = _SIDE) -> Pixels:
    """Pixels (H, W, C) in [0, 1], made smaller where they are larger than a picture can show: `side` px."""
    h, w, channels = pixels.shape
    scale = side / max(h, w)
    if scale >= 1:
        return pixels
    size = max(1, round(w * scale)), max(1, round(h * scale))
    parts = [Image.fromarray(pixels[:, :, c]).resize(size, Image.Resampling.BOX) for c in range(channels)]
    return np.stack([np.asarray(part, np.float32) for part in parts], 2).clip(0, 1)


@dataclass(frozen=True)
class Exemplar:
    """A photograph that excites a channel.

    number: in the data set. value: what it is ranked by. at: row and column of the strongest unit; None without places.
    size: height and width of the photograph in px; seen, box: what the network and that unit see of it, in the same px.
    pixels, crop: float32 (h, w, C) in [0, 1], the photograph and its part in the box, made smaller; the crop is all
        that the network sees where there is no box.
    """

    number: int
    name: str
    label: str | None
    value: float
    at: tuple[int, int] | None
    size: tuple[int, int]
    seen: Box
    box: Box | None
    pixels: Pixels
    crop: Pixels

    @property
    def short_name(self) -> str:
        """The name without the folders of its data set."""
        return PurePosixPath(self.name).name

    def summary(self) -> dict[str, Any]:
        box = self.box and asdict(self.box)
        return {"image": self.name, "label": self.label, "value": self.value, "at": self.at, "box": box}


def exemplar(
    number: int,
    name: str,
    label: str | None,
    value: float,
    at: tuple[int, int] | None,
    photo: Photo,
    seen: Box,
    box: Box | None,
) -> Exemplar:
    """An exemplar of a photograph of any size."""
    small = reduced(photo.pixels)
    crop = reduced(cut(photo, box or seen))
    return Exemplar(number, _text(name), label and _text(label), value, at, photo.size, seen, box, small, crop)


def _text(name: str) -> str:
    """A name that can be drawn: that of a file or folder need not be text."""
    return name.encode("utf-8", "replace").decode()


def cut(photo: Photo, box: Box) -> Pixels:
    """The pixels of a box, whole ones."""
    top, left = math.floor(box.top + 1e-6), math.floor(box.left + 1e-6)
    bottom, right = math.ceil(box.bottom - 1e-6), math.ceil(box.right - 1e-6)
    return photo.pixels[max(0, top) : max(top + 1, bottom), max(0, left) : max(left + 1, right)]


@dataclass(frozen=True)
class Excited:
    """A channel with its exemplars, best first.

    target: its name. statistics: numbers about all its activations, by name. beside: pictures to show at its left, each
    float32 (h, w, C) in [0, 1] with a title.
    """

    target: str
    exemplars: tuple[Exemplar, ...]
    statistics: dict[str, float]
    beside: tuple[tuple[str, Pixels], ...] = ()

    @property
    def lines(self) -> int:
        """Of pictures: photographs, and below them the boxes' contents, where there are boxes."""
        return min(1, len(self.exemplars) + len(self.beside)) + any(one.box for one in self.exemplars)

    def title(self) -> str:
        if not self.exemplars:
            return self.describe()
        said = ", ".join(f"{name} {value:.3g}" for name, value in self.statistics.items())
        return f"{self.target}   ({said})"

    def describe(self) -> str:
        """One sentence."""
        if not self.exemplars:
            return f"{self.target}: no image excites it, its value is always {self.statistics['lowest']:.3g}"
        named = [
            f"{one.value:.3g} {one.short_name}" + (f" ({one.label})" if one.label else "") for one in self.exemplars[:3]
        ]
        return f"{self.target}: {', '.join(named)}"

    def summary(self) -> dict[str, Any]:
        exemplars = [one.summary() for one in self.exemplars]
        return {"target": self.target, "statistics": self.statistics, "exemplars": exemplars}


@dataclass(frozen=True)
class Exemplars(Result):
    """For each channel the photographs that excite it most. ranked_by: what the values are. partial: after Ctrl-C, the
    photographs are all there and what stands beside them is not."""

    rows: tuple[Excited, ...]
    ranked_by: str
    notes: tuple[str, ...] = ()
    partial: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """values: float32 (R, K), NaN where a channel has fewer than K. images: int64 (R, K), numbers, -1 likewise.
        places: int64 (R, K, 2), row and column in the layer, -1 where there are none. boxes: float64 (R, K, 4), top,
        left, bottom, right in px of the photograph, NaN where there are none. `crop.R.K`, `beside.R.K`: (h, w, C).
        """
        count = max(len(row.exemplars) for row in self.rows)
        shape = (len(self.rows), count)
        values, images = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int64)
        places, boxes = np.full((*shape, 2), -1, np.int64), np.full((*shape, 4), np.nan)
        for r, k, one in ((r, k, one) for r, row in enumerate(self.rows) for k, one in enumerate(row.exemplars)):
            values[r, k], images[r, k] = one.value, one.number
            places[r, k] = one.at or (-1, -1)
            boxes[r, k] = list(asdict(one.box).values()) if one.box else np.nan
        return {"values": values, "images": images, "places": places, "boxes": boxes, **self._pictures()}

    def _pictures(self) -> dict[str, npt.NDArray[Any]]:
        crops = {f"crop.{r}.{k}": one.crop for r, row in enumerate(self.rows) for k, one in enumerate(row.exemplars)}
        return crops | {f"beside.{r}.{k}": p for r, row in enumerate(self.rows) for k, (_, p) in enumerate(row.beside)}

    def summary(self) -> dict[str, Any]:
        rows = [row.summary() for row in self.rows]
        return {"ranked_by": self.ranked_by, "partial": self.partial, "rows": rows, "notes": list(self.notes)}

    def describe(self) -> str:
        return "\n".join([*(row.describe() for row in self.rows), *self.notes])

    def figure(self) -> Figure:
        """A row for each channel: above the photographs with a box around what the strongest unit sees, below the
        boxes' contents, enlarged to one size."""
        extra = max(len(row.beside) for row in self.rows)
        columns = max(len(row.exemplars) for row in self.rows) + extra
        heights = [_CELL * row.lines + _LABEL * bool(row.lines) + _TITLE for row in self.rows]
        line = self.provenance.line()
        figure = new_figure(max(columns * _CELL + 0.2, _PAPER * len(line)), sum(heights) + 0.25)
        parts = figure.subfigures(len(self.rows), 1, squeeze=False, height_ratios=heights)
        for row, part in zip(self.rows, parts[:, 0], strict=True):
            _draw_row(part, row, columns, extra, self.ranked_by)
        figure.supxlabel(line, fontsize=6, color="0.4")
        return figure


def _draw_row(part: SubFigure, row: Excited, columns: int, extra: int, ranked_by: str) -> None:
    by = ranked_by if any(one.at for one in row.exemplars) else "the value"  # a dense unit has no positions
    title = f"{row.title()}, ranked by {by}" if row.exemplars else row.title()
    part.suptitle(title, fontsize=8.5, x=0.01, ha="left")
    if not row.lines:
        return
    cells = part.subplots(row.lines, columns, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.02})
    for ax in cells.flat:
        ax.axis("off")
    for k, (title, pixels) in enumerate(row.beside):
        _show(cells[0, k], pixels)
        cells[0, k].set_title(short(title, _NAME), fontsize=7)
    for k, one in enumerate(row.exemplars, start=extra):
        _draw_photo(cells[0, k], one)
        if row.lines > 1:
            _show(cells[1, k], one.crop)


def _draw_photo(ax: Axes, one: Exemplar) -> None:
    from matplotlib.patches import Rectangle

    height, width = one.size
    _show(ax, one.pixels, (-0.5, width - 0.5, height - 0.5, -0.5))
    dim_unseen(ax, one.size, one.seen)
    if one.box:
        corner = one.box.left - 0.5, one.box.top - 0.5
        sides = one.box.right - one.box.left, one.box.bottom - one.box.top
        ax.add_patch(Rectangle(corner, *sides, fill=False, lw=2.4, color="black"))
        ax.add_patch(Rectangle(corner, *sides, fill=False, lw=1.2, color="#f0e442"))
    ax.set_title(f"{short(one.label or one.short_name, _NAME)}\n{one.value:.3g}", fontsize=6.5, pad=2)


def _show(ax: Axes, pixels: Pixels, extent: tuple[float, float, float, float] | None = None) -> None:
    ax.axis("on")
    ax.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1, extent=extent)
    no_ticks(ax)
