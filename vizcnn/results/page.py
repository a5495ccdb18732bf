"""A page that is laid out in inches from its upper left corner, so that what is measured fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vizcnn.results.drawing import new_figure, remove_ticks, wrap_caption
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEADING = 1.3
"""From line to line of a text, in heights of its letters."""

ASCENT = 0.8
"""From the top of a line to where its letters stand, in heights of its letters."""

NARROWEST = 4.5
"""Inches, of a page with little on it: headings and the small print need room."""


def measure_lines(count: float, points: float) -> float:
    """The height of so many lines of text, in inches."""
    return count * points * LEADING / 72


class Page:
    """A figure of this width and height in inches, with a caption below.

    caption: the line of small print. number, pages: which page it is."""

    def __init__(self, width: float, height: float, caption: str, number: int = 1, pages: int = 1) -> None:
        style = current_style()
        lines, points = wrap_caption(caption, width - 0.2, number, pages)
        self.width, self.height = width, height + measure_caption(caption, width, pages)
        self.figure = new_figure(self.width, self.height, layout=None)
        if lines:
            self.write(width / 2, height + 0.04, "\n".join(lines), points, ha="center", color=style.muted)

    def write(self, left: float, top: float, text: str, points: float, **how: Any) -> None:
        """Write the lines of a text below a place; `how` is what matplotlib's Text knows, such as `ha`.

        Lines stand on their own: letters that reach up or down move none of them."""
        for k, line in enumerate(text.split("\n") if text else ()):
            down = top + measure_lines(k, points) + ASCENT * points / 72
            place = (left / self.width, 1 - down / self.height)
            self.figure.text(*place, line, **{"fontsize": points, "va": "baseline", **how})

    def add_axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without ticks in a place."""
        down = 1 - (top + height) / self.height
        place = (left / self.width, down, width / self.width, height / self.height)
        ax = self.figure.add_axes(place)
        remove_ticks(ax)
        return ax

    def add_ground(self) -> Axes:
        """Axes over the whole page, in inches from its upper left corner: a pair for each of many pictures would take
        far longer."""
        ax = self.figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, self.width), ylim=(self.height, 0), autoscale_on=False)
        ax.axis("off")
        return ax


def measure_caption(caption: str, width: float, pages: int = 1) -> float:
    """The height in inches of the small print below a page, with the space around it."""
    lines, points = wrap_caption(caption, width - 0.2, 1, pages)
    return measure_lines(len(lines), points) + 0.12 * bool(lines)
