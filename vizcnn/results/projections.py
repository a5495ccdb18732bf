"""Projections: patterns in the pixels, each drawn beside the part of the photograph that it was found in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vizcnn.errors import ShapeError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results.drawing import draw_box, draw_photo, fit_text, wrap_text
from vizcnn.results.grid import ImageGrid
from vizcnn.results.page import Page, measure_lines
from vizcnn.results.pages import BETWEEN, Block, Strip, find_room
from vizcnn.results.panel_layout import MARK
from vizcnn.results.panels import Panel, Scene
from vizcnn.results.style import current_style
from vizcnn.results.tiles import draw_square, make_photo_strip, pick_colour, scale_to_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AROUND = 0.25  # of a pattern's sides, how much is shown around it
_SEVERAL = 0.25  # of a page's width, a tile's where a photograph has several patterns below each other
_SMALLEST = 1.2  # inches, a tile's where they stand two by two


@dataclass(frozen=True)
class Projections(ImageGrid):
    """An ImageGrid of one-tile panels, each a pattern that fills the box of its mark on the photograph.

    `figure()` draws each pattern where it lies, and a little around it in mid-grey, beside the same part of the
    photograph."""

    def _make_blocks(self) -> list[Block]:
        return [_make_block(row.panels, row.scene) for row in self.rows if row.scene]


def _make_block(panels: tuple[Panel, ...], scene: Scene) -> Block:
    side, in_a_line = _choose_size(len(panels))
    pairs = [_Pair.of(panel, scene, i, side) for i, panel in enumerate(panels)]
    lines = [_make_line(pairs[first : first + in_a_line]) for first in range(0, len(pairs), in_a_line)]
    return Block(tuple(lines), make_photo_strip(scene, side, max(pair.head for pair in pairs[:in_a_line])))


def _choose_size(count: int) -> tuple[float, int]:
    """The side of a tile in inches, as large as the photograph's width, and how many of the pairs stand in a line."""
    room = find_room()
    if count == 1:
        return (room - 1.5 * BETWEEN) / 3, 1
    two = (room - 3 * BETWEEN) / 5
    return (two, 2) if count > 2 and two > _SMALLEST else (_SEVERAL * current_style().width, 1)


def _make_line(pairs: Sequence[_Pair]) -> Strip:
    head = max(pair.head for pair in pairs)
    height = max(pair.size[0] for pair in pairs)

    def draw(page: Page, left: float, top: float) -> None:
        for pair in pairs:
            pair.draw(page, left, top, head)
            left += pair.width + BETWEEN

    return Strip(sum(pair.width for pair in pairs) + BETWEEN * (len(pairs) - 1), head + height, draw)


@dataclass(frozen=True)
class _Pair:
    """A pattern beside the part of its photograph.

    box: where the pattern lies, and view: what is shown, in px of the photograph. size: of a tile, its height and
    width. head: the height of what stands over the tiles, a title and the lines that are said below it. width: of both
    tiles. All in inches.
    """

    panel: Panel
    photo: Photo
    box: Box
    view: Box
    colour: str
    size: tuple[float, float]
    head: float
    said: tuple[str, ...]
    width: float

    @classmethod
    def of(cls, panel: Panel, scene: Scene, i: int, side: float) -> _Pair:
        """The pair of panel i. side: the most that a tile measures, in inches."""
        mark, style = scene.marks[i], current_style()
        if mark is None:
            raise ShapeError(f"a projection lies in a box of the photograph, and {panel.title} has none. Give a mark")
        view, width = _look_around(mark.box, scene.seen), 2 * side + BETWEEN / 2
        down, across = view.bottom - view.top, view.right - view.left
        size = side * down / max(down, across), side * across / max(down, across)
        said = tuple(wrap_text(f"{panel.titles[0]}; {panel.scale()}", width, style.small))
        head = measure_lines(1, style.title) + measure_lines(len(said), style.small) + 0.06
        return cls(panel, scene.photo, mark.box, view, pick_colour(i), size, head, said, width)

    def draw(self, page: Page, left: float, top: float, head: float) -> None:
        """head: the height of the heads of all pairs in the line."""
        self._draw_head(page.add_axes(left, top, self.width, self.head))
        height, width = self.size
        pattern = page.add_axes(left, top + head, width, height)
        self._draw_pattern(pattern)
        photo = page.add_axes(left + width + BETWEEN / 2, top + head, width, height)
        draw_photo(photo, self.photo)
        for ax in (pattern, photo):
            ax.set(xlim=(self.view.left - 0.5, self.view.right - 0.5), aspect="auto")
            ax.set(ylim=(self.view.bottom - 0.5, self.view.top - 0.5))
            ax.spines[:].set_visible(False)
            if self.view != self.box:
                draw_box(ax, self.box, self.colour, ground="black", thickness=1.2)

    def _draw_head(self, ax: Axes) -> None:
        style, indent = current_style(), MARK + 0.06
        ax.set(xlim=(0, self.width), ylim=(self.head, 0))
        ax.axis("off")
        draw_square(ax, 0, 0.02, self.colour)
        title = fit_text(self.panel.title, self.width - indent, style.title)
        ax.text(indent, 0, title, fontsize=style.title, color=style.ink, va="top")
        below = measure_lines(1, style.title)
        ax.text(0, below, "\n".join(self.said), fontsize=style.small, color=style.muted, va="top")

    def _draw_pattern(self, ax: Axes) -> None:
        place = self.box.left - 0.5, self.box.right - 0.5, self.box.bottom - 0.5, self.box.top - 0.5
        levels = scale_to_levels(self.panel.values[0], self.panel.limits[0])
        ax.imshow(levels, "gray", vmin=0, vmax=1, extent=place, interpolation="nearest")
        ax.set_facecolor("0.5")  # zero, as in the pattern


def _look_around(box: Box, seen: Box) -> Box:
    """A box with a little around it, within what the network sees."""
    down, across = _AROUND * (box.bottom - box.top), _AROUND * (box.right - box.left)
    return Box(
        max(seen.top, box.top - down),
        max(seen.left, box.left - across),
        min(seen.bottom, box.bottom + down),
        min(seen.right, box.right + across),
    )
