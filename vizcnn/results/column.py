"""Column: many short lines of text as one thing that matplotlib draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.backend_bases import RendererBase
from matplotlib.text import Text
from matplotlib.transforms import Bbox


class Column(Text):
    """Lines of text below each other, the middle of the first at (x, y), each `step` further down in the axes' units.

    A table has hundreds of cells, and a text of its own for each takes twice as long to draw. Distances between the
    lines of a plain text depend on the font, on matplotlib's version, and on whether a line has high letters; these do
    not, so that lines stand beside those of other columns. A line may be empty."""

    def __init__(self, x: float, y: float, lines: Sequence[str], step: float, **look: Any) -> None:
        super().__init__(x, y, "\n".join(lines), va="top", **look)
        self._step = step

    def place_lines(self, renderer: RendererBase) -> Iterator[tuple[str, Bbox]]:
        """Each line that is not empty, with the box of a line of usual letters in dots, y upwards."""
        font, right = self.get_fontproperties(), self.get_horizontalalignment() == "right"
        lines, (left, top) = self.get_text().split("\n"), self.get_position()
        sizes = {line: renderer.get_text_width_height_descent(line, font, False) for line in {*lines, "lp"}}
        high = sizes["lp"][1]
        for i, line in enumerate(lines):
            if line:
                x, y = self.get_transform().transform((left, top + i * self._step))
                width = sizes[line][0]
                yield line, Bbox.from_bounds(x - width if right else x, y - high / 2, width, high)

    def draw(self, renderer: RendererBase) -> None:
        """Draw the lines. Axes call this."""
        font, bottom = self.get_fontproperties(), renderer.get_canvas_width_height()[1]
        descent = renderer.get_text_width_height_descent("lp", font, False)[2]
        gc = renderer.new_gc()
        gc.set_foreground(self.get_color())
        for line, box in self.place_lines(renderer):
            y = box.y0 + descent
            renderer.draw_text(gc, box.x0, bottom - y if renderer.flipy() else y, line, font, 0)
        gc.restore()
        self.stale = False
