"""Exemplars: the photographs that excite each channel most, with what the winning unit sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.inputs.images import Photo
from vizcnn.results.base import Result
from vizcnn.results.drawing import dim_unseen, draw_image, new_figure, shorten
from vizcnn.results.photos import Pixels, cut_out, shrink
from vizcnn.results.storing import AS_BYTES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_CELL = 1.25  # inches, a photograph or crop
_TITLE, _LABEL, _NAME = 0.3, 0.34, 17  # inches over a row and under a photograph; letters of a label
_PAPER = 0.047  # inches per letter of the line below


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
    pixels: Pixels = field(metadata=AS_BYTES)
    crop: Pixels

    @property
    def short_name(self) -> str:
        """The name without the folders of its data set."""
        return PurePosixPath(self.name).name

    def summary(self) -> dict[str, Any]:
        box = self.box and asdict(self.box)
        return {"image": self.name, "label": self.label, "value": self.value, "at": self.at, "box": box}


def make_exemplar(
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
    small = shrink(photo.pixels)
    crop = shrink(cut_out(photo, box or seen))
    return Exemplar(
        number, _make_decodable(name), label and _make_decodable(label), value, at, photo.size, seen, box, small, crop
    )


def _make_decodable(name: str) -> str:
    """The name as text: names of files and folders may hold bytes that are none."""
    return name.encode("utf-8", "replace").decode()


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
        """How many lines of pictures the row has: the photographs, and below them what is in their boxes, if any."""
        return min(1, len(self.exemplars) + len(self.beside)) + any(one.box for one in self.exemplars)

    def title(self) -> str:
        if not self.exemplars:
            return self.describe()
        said = ", ".join(f"{name} {value:.3g}" for name, value in self.statistics.items())
        return f"{self.target}   ({said})"

    def describe(self) -> str:
        """The three best photographs with their values, in a sentence."""
        if not self.exemplars:
            return f"{self.target}: no image excites it, its value is always {self.statistics['lowest']:.3g}"
        named = [
            f"{one.value:.3g} {one.short_name}" + (f" ({one.label})" if one.label else "") for one in self.exemplars[:3]
        ]
        return f"{self.target}: {', '.join(named)}"

    def summary(self) -> dict[str, Any]:
        exemplars = [one.summary() for one in self.exemplars]
        return {"target": self.target, "statistics": self.statistics, "exemplars": exemplars}


RANKED_BY = {"max": "the maximum over positions", "mean": "the mean over positions", "sum": "the sum over positions"}
"""What the values of exemplars are, for each way to rank images."""


@dataclass(frozen=True)
class Gaps:
    """What photographs that were chosen from a data set do not show.

    images: how many it has. unreadable: the numbers of those that could not be read, each with the reason.
    not_finite: per layer, how many gave NaN or infinity. kept: per layer, how many a scan keeps for a channel, where it
    may have seen more. asked: how many were to be shown. shards: of a scan, how many are missing, and of how many.
    """

    images: int
    unreadable: tuple[tuple[int, str], ...]
    not_finite: Mapping[str, int]
    kept: Mapping[str, int]
    asked: int
    shards: tuple[int, int] = (0, 0)

    def describe(self) -> Iterator[str]:
        """A sentence for each gap."""
        if self.unreadable:
            number, reason = self.unreadable[0]
            yield f"{len(self.unreadable)} of {self.images} images could not be read, the first: {number}, {reason}"
        for layer, left_out in self.not_finite.items():
            if left_out:
                yield f"{left_out} images gave NaN or infinity in layer {layer!r} and were left out"
            if self.kept.get(layer, self.asked) < self.asked:
                yield f"the scan kept {self.kept[layer]} images for each channel of layer {layer!r}, not {self.asked}"
        missing, of = self.shards
        if missing:
            yield f"the scan is not complete: {missing} of {of} shards are missing"


def draw_kernel(kernel: Pixels) -> Pixels:
    """A kernel (h, w, C) as a picture: zero is mid-grey, and its largest magnitude black or white."""
    end = max(float(np.abs(kernel).max()), 1e-12)
    return 0.5 + kernel / np.float32(2 * end)


@dataclass(frozen=True)
class Exemplars(Result):
    """For each channel the photographs that excite it most. ranked_by: what the values are. partial: after Ctrl-C, the
    photographs are all there and what stands beside them is not."""

    parts: ClassVar[tuple[type, ...]] = (Excited, Exemplar, Box)

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
        line = self.provenance.line() + "  PARTIAL" * self.partial
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
        _draw_picture(cells[0, k], pixels)
        cells[0, k].set_title(shorten(title, _NAME), fontsize=7)
    for k, one in enumerate(row.exemplars, start=extra):
        _draw_photo(cells[0, k], one)
        if row.lines > 1:
            _draw_picture(cells[1, k], one.crop)


def _draw_photo(ax: Axes, one: Exemplar) -> None:
    from matplotlib.patches import Rectangle

    height, width = one.size
    _draw_picture(ax, one.pixels, (-0.5, width - 0.5, height - 0.5, -0.5))
    dim_unseen(ax, one.size, one.seen)
    if one.box:
        corner = one.box.left - 0.5, one.box.top - 0.5
        sides = one.box.right - one.box.left, one.box.bottom - one.box.top
        ax.add_patch(Rectangle(corner, *sides, fill=False, lw=2.4, color="black"))
        ax.add_patch(Rectangle(corner, *sides, fill=False, lw=1.2, color="#f0e442"))
    ax.set_title(f"{shorten(one.label or one.short_name, _NAME)}\n{one.value:.3g}", fontsize=6.5, pad=2)


def _draw_picture(ax: Axes, pixels: Pixels, extent: tuple[float, float, float, float] | None = None) -> None:
    ax.axis("on")
    draw_image(ax, pixels, extent=extent)
