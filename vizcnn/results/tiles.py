"""How the panels of an ImageGrid are laid out and drawn: each panel is one pair of axes, measured in inches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.results.drawing import dim_unseen, draw_image, new_figure, shorten
from vizcnn.results.panels import Panel, Row, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP, _NARROWEST = 0.1, 0.5  # inches: space between tiles; a title needs room over any tile
_TITLE, _SCALE, _LABEL = 0.15, 0.12, 0.115  # inches per line of a panel's title, its scale, a tile's title
_BAR, _PANEL, _PHOTO = 0.55, 3.6, 3.2  # widths in inches: of a colour bar, of the narrowest panel, of a photograph
_SMALL_PRINT = 0.047  # inches per letter of the line below
_MARKS = ("#e69f00", "#56b4e9", "#f0e442", "#d55e00", "#cc79a7")  # Okabe and Ito's, distinct for any colour vision
_MAPS = {"grey": "gray", "magnitude": "viridis", "picture": "gray"}


class PanelLayout:
    """Where everything in a panel lies, in inches from its upper left corner."""

    def __init__(self, panel: Panel) -> None:
        h, w = panel.values.shape[1:3]
        self.count, self.columns = len(panel.values), min(panel.columns, len(panel.values))
        self.tile = panel.side * h / max(h, w), panel.side * w / max(h, w)  # height, width
        self.label = _LABEL * (1 + max(title.count("\n") for title in panel.titles))
        self.step = self.tile[0] + self.label + _GAP, max(self.tile[1], _NARROWEST) + _GAP
        self.width = max(_PANEL, self.columns * self.step[1] + _BAR * panel.has_bar)
        self.title, self.scale = wrap(panel.title, int(self.width / 0.066)), wrap(panel.scale(), int(self.width / 0.05))
        self.head = _TITLE * len(self.title) + _SCALE * len(self.scale) + _GAP
        self.height = self.head + -(-self.count // self.columns) * self.step[0] + _GAP

    def corners(self) -> Iterator[tuple[float, float]]:
        """Top and left of each tile."""
        for i in range(self.count):
            line, column = divmod(i, self.columns)
            yield self.head + self.label + line * self.step[0], column * self.step[1]


def draw_rows(rows: Sequence[Row], footer: str) -> Figure:
    """The figure of these rows, with one line of small print below."""
    beside = any(row.scene for row in rows)
    lines = [line for row in rows for line in _list_lines(row)]
    heights = [height for row in rows for height in _measure_heights(row)]
    widths = [_PHOTO] * beside + _measure_widths(lines)
    figure = new_figure(
        max(sum(widths) + 0.3, _SMALL_PRINT * len(footer)), sum(heights) + 0.3 + 0.3 * beside * len(rows)
    )
    cells = figure.add_gridspec(
        len(lines), len(widths), width_ratios=widths, height_ratios=heights, wspace=0.02, hspace=0.0
    )
    start = 0
    for row in rows:
        end = start + len(_list_lines(row))
        if row.scene:
            _draw_scene(figure.add_subplot(cells[start:end, 0]), row.scene)
        for i, line in enumerate(_list_lines(row)):
            for j, panel in enumerate(line, start=beside):
                draw_panel(figure.add_subplot(cells[start + i, j]), panel, _pick_colour(row, i))
        start = end
    figure.supxlabel(footer, fontsize=6, color="0.4")
    return figure


def _list_lines(row: Row) -> Sequence[Sequence[Panel]]:
    return [[panel] for panel in row.panels] if row.scene else [row.panels]


def _measure_heights(row: Row) -> list[float]:
    """Heights of the lines of a row, in inches; together at least that of the row's photograph."""
    heights = [max(PanelLayout(panel).height for panel in line) for line in _list_lines(row)]
    if row.scene is None:
        return heights
    h, w = row.scene.photo.size
    missing = min(_PHOTO * h / w, 1.5 * _PHOTO) + 0.3 - sum(heights)
    return [height + max(0.0, missing) / len(heights) for height in heights]


def _measure_widths(lines: Sequence[Sequence[Panel]]) -> list[float]:
    columns = zip_longest(*([PanelLayout(panel).width for panel in line] for line in lines), fillvalue=0.0)
    return [max(column) for column in columns]


def _pick_colour(row: Row, i: int) -> str | None:
    """The colour that ties a panel to its box on the photograph."""
    return _MARKS[i % len(_MARKS)] if row.scene and row.scene.marks[i] else None


def _draw_scene(ax: Axes, scene: Scene) -> None:
    draw_image(ax, scene.photo.pixels)
    dim_unseen(ax, scene.photo.size, scene.seen)
    before: set[Box] = set()
    for i, mark in enumerate(scene.marks):
        if mark:
            _outline(ax, mark.box, _MARKS[i % len(_MARKS)], dashed=mark.box in before)
            before.add(mark.box)
    ax.set_title(shorten(scene.photo.name), fontsize=9)
    ax.set_anchor("N")


def _outline(ax: Axes, box: Box, colour: str, *, dashed: bool) -> None:
    """Draw a box; dashed where it would hide an equal one, so that both colours show."""
    from matplotlib.patches import Rectangle

    corner, size = (box.left - 0.5, box.top - 0.5), (box.right - box.left, box.bottom - box.top)
    if not dashed:
        ax.add_patch(Rectangle(corner, *size, fill=False, lw=3.5, color="black"))
    ax.add_patch(Rectangle(corner, *size, fill=False, lw=2, color=colour, ls=(0, (4, 4)) if dashed else "-"))


def new_axes(panel: Panel) -> Axes:
    """Axes of the size of a panel, in a figure of their own."""
    layout = PanelLayout(panel)
    return new_figure(layout.width + 0.3, layout.height + 0.3).add_subplot()


def draw_panel(ax: Axes, panel: Panel, colour: str | None = None) -> Axes:
    """Draw a panel, with a square of the colour of its box if it has one. Returns the Axes."""
    from matplotlib.patches import Rectangle

    layout = PanelLayout(panel)
    h, w = layout.tile
    tiles = zip(panel.values, panel.limits, panel.titles, layout.corners(), strict=True)
    for values, limits, title, (top, left) in tiles:
        extent = (left, left + w, top + h, top)
        ax.imshow(
            _scale_to_levels(values, limits),
            _MAPS[panel.colours],
            vmin=0,
            vmax=1,
            extent=extent,
            interpolation="nearest",
        )
        ax.add_patch(Rectangle((left, top), w, h, fill=False, lw=0.4, color="0.6"))  # a white tile has an edge too
        ax.text(left, top - 0.02, title, fontsize=6.5, va="bottom", linespacing=1.05)
    _draw_head(ax, layout, colour)
    if panel.has_bar:
        _draw_bar(ax, panel, layout)
    ax.set(xlim=(0, layout.width), ylim=(layout.height, 0), aspect="equal", anchor="NW")
    ax.axis("off")
    return ax


def _scale_to_levels(values: npt.NDArray[np.float32], limits: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Map values to brightness in [0, 1]: the limits become black and white, what lies beyond them too."""
    low, high = limits
    levels: npt.NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1)
    return levels


def _draw_head(ax: Axes, layout: PanelLayout, colour: str | None) -> None:
    """Title and scale; a square in the colour of the panel's box ties the two together."""
    from matplotlib.patches import Rectangle

    if colour:
        ax.add_patch(Rectangle((0, 0.02), 0.1, 0.1, facecolor=colour, edgecolor="black", lw=0.8))
    ax.text(0.16 if colour else 0, 0, "\n".join(layout.title), fontsize=8.5, va="top")
    ax.text(0, _TITLE * len(layout.title), "\n".join(layout.scale), fontsize=6.5, va="top", color="0.3")


def _draw_bar(ax: Axes, panel: Panel, layout: PanelLayout) -> None:
    """The colour bar of tiles that share a scale, beside their first lines."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    top, height = layout.head + layout.label, min(layout.height - layout.head - layout.label - 2 * _GAP, 1.6)
    corner = layout.columns * layout.step[1] / layout.width, 1 - (top + height) / layout.height
    place = ax.inset_axes((*corner, 0.09 / layout.width, height / layout.height))
    colours = ScalarMappable(Normalize(*panel.limits[0]), _MAPS[panel.colours])
    ax.figure.colorbar(colours, cax=place).ax.tick_params(labelsize=6)
