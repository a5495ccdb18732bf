"""Scatter: the images of a data set as points in a plane, coloured by class, and some of them as pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results.base import Result
from vizcnn.results.drawing import (
    draw_caption,
    draw_image,
    fit_text,
    measure_axes,
    measure_text,
    new_figure,
    remove_ticks,
    wrap_text,
)
from vizcnn.results.photos import cut_out, shrink
from vizcnn.results.records import make_even
from vizcnn.results.storing import AS_BYTES
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

COLOURS = (  # with the grey at least 11 apart in CIELAB, also to red-, green- and blue-blind eyes
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#000000",
    "#f0e442",
    "#882255",
    "#999933",
    "#332288",
    "#44ffcc",
)
"""Of the most frequent classes, in their order of names."""

_OTHER = "#b0b0b0"
_ON_DARK = {"#000000": "#eceff3", "#882255": "#aa3366", "#332288": "#6f5bff"}  # in place of what a dark ground hides
_SIDE = 96  # px of a thumbnail
_FEWEST, _MOST = 5, 16  # cells of the grid in each direction
_PANEL, _TWO = 4.4, 6.0  # inches: side of a map at most, and the width that is wide enough for two beside each other
_LINE, _NAME, _KEY = 0.2, 1.6, 0.55  # inches: a line of the legend, the longest name in it, and what is beside a name


@dataclass(frozen=True)
class MapGrid:
    """A square grid over a map of points. In each cell that holds any, the point nearest to the centre is chosen.

    low: x and y of the lower left corner. side: of the whole square. cell: of a cell.
    chosen: int64 (M,), the points. centres: float64 (M, 2), x and y of their cells' centres.
    """

    low: Floats
    side: float
    cell: float
    chosen: npt.NDArray[np.int64]
    centres: Floats

    @classmethod
    def over(cls, points: Floats, across: int | None = None) -> MapGrid:
        """Lay the grid over points (N, 2), with `across` cells in each direction; by default more for more points."""
        across = across or int(np.clip(1.4 * len(points) ** 0.5, _FEWEST, _MOST))
        least, most = points.min(0), points.max(0)
        side = float((most - least).max()) or 1.0
        low, cell = (least + most - side) / 2, side / across
        cells = ((points - low) / cell).astype(np.int64).clip(0, across - 1)  # (N, 2)
        centres = low + (cells + 0.5) * cell
        apart = np.hypot(*(points - centres).T)  # (N,)
        order = np.lexsort((apart, cells[:, 0], cells[:, 1]))
        chosen = order[np.unique(cells[order], axis=0, return_index=True)[1]]
        return cls(low, side, cell, chosen, centres[chosen])


@dataclass(frozen=True)
class Thumbnail:
    """The picture that stands for a point: what the network saw of the image, float32 (h, w, C) in [0, 1]."""

    index: int
    pixels: npt.NDArray[np.float32] = field(metadata=AS_BYTES)


def make_thumbnail(index: int, photo: Photo, seen: Box) -> Thumbnail:
    """The thumbnail of a photograph of which the network saw a box."""
    return Thumbnail(index, shrink(cut_out(photo, seen), _SIDE))


@dataclass(frozen=True)
class Scatter(Result):
    """N images as points in a plane.

    points: float64 (N, 2). axes: what the two directions are. title: what the map is.
    numbers: int64 (N,), of the images in the data set; names and labels: theirs, None for an unknown class.
    thumbnails: pictures of some of the points. found: numbers about the map, by name. findings: it in words.
    features: float32 (N, F), what the map was made of, where they were to be kept.
    """

    parts: ClassVar[tuple[type, ...]] = (Thumbnail,)

    points: Floats
    axes: tuple[str, str]
    title: str
    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    thumbnails: tuple[Thumbnail, ...]
    found: Mapping[str, Any]
    findings: tuple[str, ...]
    features: npt.NDArray[np.float32] | None = None

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of all classes, in order; names that are numbers come first, by size."""
        return tuple(sorted({label for label in self.labels if label is not None}, key=_sort_key))

    @property
    def coloured(self) -> dict[str, str]:
        """The colour of each of the most frequent classes."""
        counts = Counter(label for label in self.labels if label is not None)
        chosen = sorted(self.classes, key=lambda name: -counts[name])[: len(COLOURS)]
        return dict(zip((name for name in self.classes if name in chosen), list_colours(), strict=False))

    def colour(self, i: int) -> str:
        """The colour of point i; grey where its class has none, or is unknown."""
        return self._colours([i])[0]

    def _colours(self, points: Iterable[int]) -> list[str]:
        coloured = self.coloured
        return [coloured.get(self.labels[i] or "", _OTHER) for i in points]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """points: float64 (N, 2). images: int64 (N,), numbers in the data set. classes: int64 (N,), numbers in
        `summary()["classes"]`, -1 where unknown. features: float32 (N, F), where they were kept."""
        places = {name: i for i, name in enumerate(self.classes)}
        classes = np.array([-1 if label is None else places[label] for label in self.labels], np.int64)
        kept = {} if self.features is None else {"features": self.features}
        return {"points": self.points, "images": self.numbers, "classes": classes, **kept}

    def summary(self) -> dict[str, Any]:
        return {
            **self.found,
            "findings": list(self.findings),
            "classes": list(self.classes),
            "names": list(self.names),
        }

    def records(self) -> list[dict[str, Any]]:
        """One for each image: its name, its number in the data set, its class, and its place in the plane."""
        places = zip(self.names, self.numbers, self.labels, self.points, strict=True)
        return make_even(
            {"image": name, "image_number": number, "label": label, "x": x, "y": y}
            for name, number, label, (x, y) in places
        )

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The names of the images; all else is in the numbers."""
        return make_even({"image": name} for name in summary["names"])

    def describe(self) -> str:
        return "\n".join(self.findings)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the points in their classes' colours, with a legend, on `ax` or on a new figure. Returns the Axes."""
        if ax is None:
            side = min(_PANEL, current_style().width - 0.2)
            ax = new_figure(side, side + 0.6 + self._measure_legend(side)).add_subplot()
        self._draw_map(ax, MapGrid.over(self.points))
        self._draw_legend(ax, measure_axes(ax)[0], loc="upper center", bbox_to_anchor=(0.5, -0.06))
        return ax

    def figure(self) -> Figure:
        """At the left every image as a point in the colour of its class; at the right (or below, where a style is
        narrow), at the same scale, one image for each cell of a grid that holds any, framed in its class's colour."""
        style = current_style()
        beside = style.width >= _TWO
        side = min(_PANEL, (style.width / 2 if beside else style.width) - 0.1)
        room = (1 + beside) * side - 0.3
        rest = self._measure_legend(room) + 0.6
        if not beside:
            side = min(side, (style.height - rest - 0.3) / 2)
        height = rest + (side if beside else 2 * side + 0.3)
        figure = new_figure(room + 0.4, height)
        left, right = figure.subplots(*((1, 2) if beside else (2, 1)))
        grid = MapGrid.over(self.points)
        self._draw_map(left, grid)
        self._draw_thumbnails(right, grid)
        _finish_axes(right, grid, "the same map, an image for each cell")
        self._draw_legend(figure, room, loc="outside upper center")
        draw_caption(figure, self.small_print)
        return figure

    def _draw_map(self, ax: Axes, grid: MapGrid) -> None:
        self._draw_points(ax)
        _finish_axes(ax, grid, self.title)
        size = current_style().text
        room = measure_axes(ax)[0] - 0.2
        ax.set_xlabel(fit_text(self.axes[0], room, size), fontsize=size)
        ax.set_ylabel(fit_text(self.axes[1], room, size), fontsize=size)

    def _measure_legend(self, room: float) -> float:
        """The height of the legend in lines of `room` inches."""
        legend = self._legend()
        return _LINE * (1 - (-len(legend) // _count_columns(legend, room)))

    def _draw_legend(self, place: Axes | Figure, room: float, **where: Any) -> None:
        """Draw the legend in lines of `room` inches, or none where no class is known."""
        from matplotlib.lines import Line2D

        legend = self._legend()
        columns = _count_columns(legend, room)
        by_rows = [legend[i] for column in range(columns) for i in range(column, len(legend), columns)]
        if not by_rows:
            return
        handles = [Line2D([], [], color=colour, marker="o", ls="") for _, colour in by_rows]
        names = [""] * len(handles)  # first: matplotlib leaves out labels that begin with an underscore
        drawn = place.legend(handles, names, ncols=columns, fontsize=current_style().small, frameon=False, **where)
        for text, (name, _) in zip(drawn.get_texts(), by_rows, strict=True):
            text.set_text(name)

    def _legend(self) -> list[tuple[str, str]]:
        """The names and colours of the legend; none where no class is known."""
        entries = [(fit_text(name, _NAME, current_style().small), colour) for name, colour in self.coloured.items()]
        others = len(self.classes) - len(entries)
        said = [f"{others} other classes"] * (others > 0) + ["unknown"] * (None in self.labels)
        return [*entries, *([(", ".join(said), _OTHER)] if said else [])] if entries else []

    def _draw_points(self, ax: Axes) -> None:
        """Draw the points in a random order, so that no class covers all others; grey ones below."""
        count = len(self.points)
        order = np.random.default_rng(0).permutation(count)
        order = order[np.argsort([colour != _OTHER for colour in self._colours(order)], kind="stable")]
        size = float(np.clip(9000 / count, 5, 45))
        x, y = self.points[order].T
        edge = current_style().paper
        ax.scatter(x, y, size, self._colours(order), edgecolors=edge, linewidths=0.02 * size**0.5 + 0.1)

    def _draw_thumbnails(self, ax: Axes, grid: MapGrid) -> None:
        centres = dict(zip(grid.chosen.tolist(), grid.centres, strict=True))
        colours = self._colours(each.index for each in self.thumbnails)
        for each, colour in zip(self.thumbnails, colours, strict=True):
            _draw_thumbnail(ax, each.pixels, centres[each.index], grid.cell, colour)


def list_colours() -> list[str]:
    """The colours of classes on the paper of the style."""
    is_dark = current_style().name == "dark"
    return [_ON_DARK.get(colour, colour) if is_dark else colour for colour in COLOURS]


def _sort_key(name: str) -> tuple[bool, int, str]:
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def _count_columns(legend: Sequence[tuple[str, str]], room: float) -> int:
    """How many columns of a legend fit into lines of `room` inches."""
    widest = max((measure_text(name, current_style().small) for name, _ in legend), default=0.0)
    return max(1, min(len(legend), int(room / (_KEY + widest))))


def _finish_axes(ax: Axes, grid: MapGrid, title: str) -> None:
    margin = 0.03 * grid.side
    (left, low), high = grid.low - margin, grid.low + grid.side + margin
    ax.set(xlim=(left, high[0]), ylim=(low, high[1]), aspect="equal")
    size = current_style().title
    ax.set_title("\n".join(wrap_text(title, measure_axes(ax)[0], size)), fontsize=size)
    remove_ticks(ax)


def _draw_thumbnail(
    ax: Axes, pixels: npt.NDArray[np.float32], centre: Sequence[float], cell: float, colour: str
) -> None:
    """Draw a thumbnail as large as its cell allows, with a thin gap to its neighbours."""
    from matplotlib.patches import Rectangle

    h, w = pixels.shape[:2]
    half = 0.46 * cell * np.array([w, h]) / max(h, w)
    (left, low), (right, high) = centre - half, centre + half
    draw_image(ax, pixels, extent=(left, right, low, high), zorder=2)
    ax.add_patch(Rectangle((left, low), right - left, high - low, fill=False, lw=1.3, color=colour, zorder=3))
