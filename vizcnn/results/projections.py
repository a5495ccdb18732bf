"""Projections: patterns in the pixels, each drawn beside the part of the photograph that it was found in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

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
from vizcnn.results.trust import Trust, describe_trust

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AROUND = 0.25  # of a pattern's sides, how much is shown around it
_SEVERAL = 0.25  # of a page's width, a tile's where a photograph has several patterns below each other
_SMALLEST = 1.2  # inches, a tile's where they stand two by two


@dataclass(frozen=True)
class Projections(ImageGrid):
    """An ImageGrid of one-tile panels, each a pattern that fills the box of its mark on the photograph.

    `figure()` draws each pattern where it lies, and a little around it in mid-grey, beside the same part of the
    photograph.

    trust: per photograph and pattern how far it can be believed as a map of its magnitudes, or None where that could
        not be found out; empty where it was not asked for.
    """

    parts: ClassVar[tuple[type, ...]] = (*ImageGrid.parts, Trust)

    trust: tuple[tuple[Trust | None, ...], ...] = field(default=(), kw_only=True)

    def summary(self) -> dict[str, Any]:
        trust = [[one and one.summary() for one in row] for row in self.trust]
        return super().summary() | ({"trust": trust} if trust else {})

    def describe(self) -> str:
        if not self.trust:
            return super().describe()
        lines = list[str]()
        for finding, row, trusts in zip(self.findings, self.rows, self.trust, strict=True):
            judged = zip(row.panels, trusts, strict=True)
            lines += [finding, *(f"  {panel.title}: {describe_trust(one)}" for panel, one in judged)]
        return "\n".join(lines)

    def list_maps(self, image: int) -> list[npt.NDArray[np.float32]]:
        """The magnitudes of each pattern of a photograph, over all that the network saw of it, (H, W) in px of the
        input: the largest over channels, and zero where nothing reaches."""
        row = self.rows[image]
        assert row.scene is not None
        marks = zip(row.panels, row.scene.marks, strict=True)
        return [_place_pattern(panel, mark.box, row.scene.seen) for panel, mark in marks if mark]

    def _make_blocks(self) -> list[Block]:
        trust = self.trust or [()] * len(self.rows)
        return [_make_block(row.panels, row.scene, own) for row, own in zip(self.rows, trust, strict=True) if row.scene]


def _place_pattern(panel: Panel, box: Box, seen: Box) -> npt.NDArray[np.float32]:
    """The magnitudes of a pattern (1, h, w) or (1, h, w, C) that fills a box of the photograph, (H, W)."""
    pattern = np.abs(panel.values[0])
    if pattern.ndim == 3:
        pattern = pattern.max(2)  # (h, w)
    down, across = pattern.shape[0] / (box.bottom - box.top), pattern.shape[1] / (box.right - box.left)
    whole = np.zeros((round(down * (seen.bottom - seen.top)), round(across * (seen.right - seen.left))), np.float32)
    top, left = round(down * (box.top - seen.top)), round(across * (box.left - seen.left))
    whole[top : top + pattern.shape[0], left : left + pattern.shape[1]] = pattern
    return whole


def _make_block(panels: tuple[Panel, ...], scene: Scene, trust: Sequence[Trust | None]) -> Block:
    side, in_a_line = _choose_size(len(panels))
    said = [describe_trust(one) for one in trust] or [""] * len(panels)
    pairs = [_Pair.of(panel, scene, i, side, said[i]) for i, panel in enumerate(panels)]
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
    trusted: tuple[str, ...]
    width: float

    @classmethod
    def of(cls, panel: Panel, scene: Scene, i: int, side: float, trust: str) -> _Pair:
        """The pair of panel i. side: the most that a tile measures, in inches. trust: how far it can be believed."""
        mark, style = scene.marks[i], current_style()
        if mark is None:
            raise ShapeError(f"a projection lies in a box of the photograph, and {panel.title} has none. Give a mark")
        view, width = _look_around(mark.box, scene.seen), 2 * side + BETWEEN / 2
        down, across = view.bottom - view.top, view.right - view.left
        size = side * down / max(down, across), side * across / max(down, across)
        said = tuple(wrap_text(f"{panel.titles[0]}; {panel.scale()}", width, style.small))
        trusted = tuple(wrap_text(trust, width, style.small))
        head = measure_lines(1, style.title) + measure_lines(len(said) + len(trusted), style.small) + 0.06
        return cls(panel, scene.photo, mark.box, view, pick_colour(i), size, head, said, trusted, width)

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
        below += measure_lines(len(self.said), style.small)
        ax.text(0, below, "\n".join(self.trusted), fontsize=style.small, color=style.ink, va="top")

    def _draw_pattern(self, ax: Axes) -> None:
        place = self.box.left - 0.5, self.box.right - 0.5, self.box.bottom - 0.5, self.box.top - 0.5
        levels = scale_to_levels(self.panel.shown[0], self.panel.limits[0])
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
