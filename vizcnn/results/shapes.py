"""The diagram of the shapes through a network: a block for each stage, as high as its maps and as deep as its channels.

A side is drawn as the square root of its length, and channels by their logarithm: 224 px and 7 px, 3 channels and 2048
must stand on one page. The numbers below say what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2, sqrt
from typing import TYPE_CHECKING

from vizcnn.results.drawing import fit_text
from vizcnn.results.page import Page, measure_lines
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARGIN, _BETWEEN = 0.15, 0.16  # inches: around the diagram, between blocks
_TALLEST = 1.35  # inches, of the highest block
_SLANT = 0.45  # how far a block's depth goes to the right and up, for each inch that it is wide
_LIGHT, _FRONT, _DARK = "#cfe3f2", "#9cc4e2", "#6ea3cc"  # faces of a block of maps
_ROW = ("#f3d9b1", "#e8bd7d", "#d39b4c")  # of one without places


@dataclass(frozen=True)
class Stage:
    """Layers that follow each other and give outputs of one size.

    name: the first of them with weights, or the first. channels: the fewest and the most. size: height and width, (T,)
    for tokens, () without places. layers: how many of them have weights."""

    name: str
    channels: tuple[int, int]
    size: tuple[int, ...]
    layers: int

    @property
    def side(self) -> float:
        """The side of its maps; of as many tokens in a square, or of one place."""
        return max(self.size) if len(self.size) > 1 else sqrt(max(self.size, default=1))

    def describe(self) -> tuple[str, str]:
        """Its channels and its size in words; no size where there are no places."""
        low, high = self.channels
        return f"{low:,}" if low == high else f"{low:,}-{high:,}", " x ".join(
            f"{side:,}" for side in self.size
        ) + " tokens" * (len(self.size) == 1)


class ShapeDiagram:
    """Where the blocks of stages lie, in inches; of no height where there are none."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        style = current_style()
        self.stages, self.width = stages, style.width
        self.points = style.small
        self.height = _TALLEST * (1 + _SLANT) + measure_lines(3.3, self.points) + 1.5 * _MARGIN if stages else 0.0

    def draw(self, page: Page) -> None:
        """Draw the blocks at the top of a page, each with its name, channels and size below."""
        ax, style = page.add_ground(), current_style()
        room = (page.width - 2 * _MARGIN + _BETWEEN) / len(self.stages) - _BETWEEN
        longest = max(stage.side for stage in self.stages)
        most = max(stage.channels[1] for stage in self.stages)
        floor = _MARGIN + _TALLEST * (1 + _SLANT)
        for i, stage in enumerate(self.stages):
            left = _MARGIN + i * (room + _BETWEEN)
            deep = 0.06 + 0.5 * min(room, 0.9) * log2(1 + stage.channels[1]) / log2(1 + most)
            high = max(0.05, _TALLEST * sqrt(stage.side / longest)) if stage.size else 0.5 * _TALLEST
            _draw_block(ax, (left, floor), deep, high, bool(stage.size))
            self._write(page, left, floor + 0.08, room, stage)
        ax.plot([_MARGIN, page.width - _MARGIN], [floor] * 2, color=style.faint, lw=0.6, zorder=0)

    def _write(self, page: Page, left: float, top: float, room: float, stage: Stage) -> None:
        style, (channels, size) = current_style(), stage.describe()
        for k, (text, colour) in enumerate(((stage.name, style.ink), (channels, style.ink), (size, style.muted))):
            down = top + measure_lines(1.1 * k, self.points)
            page.write(left, down, fit_text(text, room + _BETWEEN / 2, self.points), self.points, color=colour)


def _draw_block(ax: Axes, corner: tuple[float, float], deep: float, high: float, has_places: bool) -> None:
    """A block whose front stands with its lower left at a corner: thin to the front, its maps seen from the side."""
    from matplotlib.patches import Polygon

    (x, y), aslant = corner, _SLANT * high if has_places else 0.12
    light, front, dark = (_LIGHT, _FRONT, _DARK) if has_places else _ROW
    faces = [
        (front, [(x, y), (x + deep, y), (x + deep, y - high), (x, y - high)]),
        (light, [(x, y - high), (x + deep, y - high), (x + deep + aslant / 2, y - high - aslant / 2),
                 (x + aslant / 2, y - high - aslant / 2)]),
        (dark, [(x + deep, y), (x + deep, y - high), (x + deep + aslant / 2, y - high - aslant / 2),
                (x + deep + aslant / 2, y - aslant / 2)]),
    ]  # fmt: skip
    for colour, corners in faces:
        ax.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="#3d5a73", linewidth=0.5))
