"""How a unit's arithmetic is drawn: patches, kernels and products as grids of numbers, and the sum below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vizcnn.results.drawing import fit_text, measure_text, wrap_text
from vizcnn.results.page import Page, measure_lines
from vizcnn.results.style import current_style
from vizcnn.results.sums import Addend, Line, Numbers, UnitSum, write_sum
from vizcnn.results.tiles import make_photo_strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _GAP = 0.2, 0.32  # inches: around all, and between grids, where the signs stand
_SHOWN = 6  # channels that are drawn, those that add most
_TALLEST, _CELL = 1.4, 0.46  # inches: of a grid, and of one of its cells
_SMALLEST = 0.87  # of the style's small letters, the numbers in cells; where they would be smaller there are none
_FILLED = 0.92  # of a cell's width and height, by its number
_TILE = 1.5  # inches, of a map over which the kernel slides
_SUMS, _WORDS = 0.6, 0.85  # inches: of the column of sums, and of numbers in front of the words that say what they are
_BETWEEN, _NARROWEST = 0.35, 3.0  # inches: between the photograph and the grids, and of these beside it
_PALE = 1.9  # times the largest number: where the colours end, so that letters can be read on all of them
_INK, _HERE = "#1a1a1a", "#d55e00"  # of what stands on colours, which are the same on any ground


def draw_unit(unit: UnitSum, small_print: str, page: int, pages: int) -> Figure:
    """The photograph, the channels of the first addend that add most as grids of numbers, and all that is added up."""
    style, photo = current_style(), make_photo_strip(unit.scene)
    title = wrap_text(f"{unit.title}, number by number", style.width - 2 * _MARGIN, style.title)
    head = measure_lines(len(title) + 2.2, style.title)
    beside = style.width - photo.width - _BETWEEN - 2 * _MARGIN >= _NARROWEST
    left = _MARGIN + (photo.width + _BETWEEN) * beside
    top = head if beside else head + photo.height + 0.2
    room = style.width - left - _MARGIN
    lines = _wrap_lines(unit, room - _WORDS)
    high = measure_lines(1.25 * sum(len(words) for _, words in lines) + 0.6, style.text)
    grids = _Grids(unit.addends[0], room, style.height - top - high - 0.12 - _MARGIN)
    below = top + grids.height + 0.12
    made = Page(style.width, max(below + high, head + photo.height) + _MARGIN, small_print, page, pages)
    made.write(_MARGIN, _MARGIN * 0.6, "\n".join(title), style.title)
    photo.draw(made, _MARGIN, head)
    grids.draw(made, left, top)
    _write_lines(made, lines, left, below)
    return made.figure


def _wrap_lines(unit: UnitSum, room: float) -> list[tuple[Line, list[str]]]:
    """All that is added up, with its words in lines of this width."""
    return [(line, wrap_text(line.words, room, current_style().text)) for line in unit.list_lines()]


def _write_lines(page: Page, lines: Sequence[tuple[Line, list[str]]], left: float, top: float) -> None:
    """All that is added up, the numbers one below the other."""
    points = current_style().text
    for line, words in lines:
        weight = "bold" if line.is_result else "normal"
        page.write(left + 0.1, top, line.sign, points, weight=weight)
        page.write(left + _WORDS - 0.15, top, line.number, points, ha="right", weight=weight)
        for word in words:
            page.write(left + _WORDS, top, word, points, weight=weight)
            top += measure_lines(1.25, points)


class _Grids:
    """A row for each channel: its patch, times its kernel, is the products, and their sum."""

    def __init__(self, addend: Addend, room: float, tallest: float) -> None:
        """room, tallest: the width and height in inches that there are."""
        style, (_, height, width) = current_style(), addend.patch.shape
        self.addend, self.room = addend, room
        self.cell = min(_CELL, _TALLEST / height, (room - _SUMS - 3 * _GAP) / (3 * width))
        self.size = self.cell * width, self.cell * height
        self.step = self.size[0] + _GAP
        self.row = self.size[1] + measure_lines(1.5, style.small)
        most = max(1, min(_SHOWN, int((tallest - measure_lines(3.2, style.text)) / self.row)))
        self.chosen = [int(i) for i in np.argsort(-np.abs(addend.sums), kind="stable")[:most]]
        self.rest = len(addend.sums) - len(self.chosen)
        self.height = self.row * len(self.chosen) + measure_lines(1.6 + 1.6 * bool(self.rest), style.text)

    def draw(self, page: Page, left: float, top: float) -> None:
        style = current_style()
        for k, name in enumerate(("reads", "weights", "products", "sum")):
            words = fit_text(name, self.step - 0.05, style.text)
            page.write(left + k * self.step, top, words, style.text, color=style.muted)
        top += measure_lines(1.6, style.text)
        for i in self.chosen:
            self._draw_row(page, i, left, top)
            top += self.row
        if self.rest:
            several = f"the other {self.rest:,} channels together" if self.rest > 1 else "the other channel"
            sums, sizes = (np.delete(each, self.chosen).sum() for each in (self.addend.sums, self.addend.sizes))
            page.write(left, top + 0.05, fit_text(several, 3 * self.step, style.text), style.text, color=style.muted)
            page.write(left + 3 * self.step, top + 0.05, write_sum(sums, sizes), style.text)

    def _draw_row(self, page: Page, i: int, left: float, top: float) -> None:
        """The grids of one channel, with the signs between them."""
        style, addend = current_style(), self.addend
        assert addend.weights is not None
        page.write(left, top, fit_text(addend.reads[i], self.room, style.small), style.small)
        down = top + measure_lines(1.2, style.small)
        for k, grids in enumerate((addend.patch, addend.weights, addend.products)):
            ax = page.add_axes(left + k * self.step, down, *self.size)
            scale = float(np.abs(grids[self.chosen]).max()) or 1.0
            _draw_numbers(ax, grids[i], scale, self.cell, addend.inside if k != 1 else None)
        middle = down + self.size[1] / 2 - 0.6 * style.text / 72
        for k, sign in enumerate(("x", "=", "=")):
            page.write(left + (k + 1) * self.step - _GAP / 2, middle, sign, style.text, ha="center", color=style.muted)
        page.write(left + 3 * self.step, middle, write_sum(addend.sums[i], addend.sizes[i]), style.text)


def _draw_numbers(ax: Axes, grid: Numbers, scale: float, cell: float, inside: Any = None) -> None:
    """A grid (rows, columns) as colours, orange above zero and purple below, with its numbers where there is room.

    scale: the number of the strongest colour. cell: a side in inches. inside: bool, the places that are on the map; the
    others are padding, and hatched."""
    style = current_style()
    ax.imshow(grid, cmap="PuOr_r", vmin=-_PALE * scale, vmax=_PALE * scale, aspect="auto", interpolation="nearest")
    ax.spines[:].set(color=style.faint, linewidth=0.6)
    if inside is not None:
        for y, x in np.argwhere(~inside):
            ax.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=style.faint, hatch="////", lw=0, alpha=0.6)
    for digits in (3, 2):
        texts = [[write_short(float(value), digits) for value in row] for row in grid]
        widest = max(measure_text(text, style.small) for row in texts for text in row)
        points = min(style.small * min(1, _FILLED * cell / widest), 72 * _FILLED * cell)
        if points >= _SMALLEST * style.small:
            for (y, x), _ in np.ndenumerate(grid):
                ax.text(x, y, texts[y][x], ha="center", va="center", fontsize=points, color=_INK)
            break


def write_short(value: float, digits: int) -> str:
    """A number in so many digits and two signs at most; `0` is zero itself, and `.00` less than can be written."""
    size = abs(value)
    if abs(value - round(value)) <= 1e-6 * size and size < 10**digits:
        return f"{round(value)}"
    if digits == 3 and size < 0.0005:
        return f"{value:.0e}".replace("e-0", "e-")
    behind = next((k for k in range(digits, 0, -1) if size < 10 ** (digits - k) - 0.5 * 10**-k), 0)
    text = f"{value:.{behind}f}"
    return text.replace("0.", ".", 1) if size < 1 and behind else text


def draw_sliding(unit: UnitSum, small_print: str, page: int, pages: int) -> Figure:
    """The kernel at each place of the only map that it reads, with the sum of products there."""
    style, main = current_style(), unit.addends[0]
    assert main.whole is not None
    assert main.weights is not None
    sums, padded = (
        main.slide(),
        [side + 2 * padding for side, padding in zip(main.whole.shape, main.padding, strict=True)],
    )
    room = style.width - 2 * _MARGIN
    cell = min(_TILE, room / sums.shape[1] - 0.14) / max(padded)
    high, wide = (cell * side for side in padded)
    title = wrap_text(f"{unit.name}: the kernel at every place, and the sum of its products there", room, style.title)
    head, step = measure_lines(len(title) + 2, style.title), high + measure_lines(1.9, style.small)
    made = Page(style.width, head + step * sums.shape[0] + _MARGIN, small_print, page, pages)
    made.write(_MARGIN, _MARGIN * 0.6, "\n".join(title), style.title)
    for place, total in np.ndenumerate(sums):
        y, x = place
        left, top, here = _MARGIN + x * room / sums.shape[1], head + y * step, place == unit.place
        _draw_place(made.add_axes(left, top, wide, high), main, (y, x), cell, here=here)
        weight = "bold" if here else "normal"
        text = write_sum(total, np.abs(main.whole).sum() * np.abs(main.weights).max())
        made.write(left + wide / 2, top + high + 0.03, text, style.small, ha="center", weight=weight)
    return made.figure


def _draw_place(ax: Axes, main: Addend, place: Sequence[int], cell: float, *, here: bool) -> None:
    """The whole map with its padding, and a frame around what the kernel reads at a place. here: whether that is the
    unit's own."""
    from matplotlib.patches import Rectangle

    assert main.whole is not None
    around = [(padding, padding) for padding in main.padding]
    padded, inside = np.pad(main.whole, around), np.pad(np.ones(main.whole.shape, bool), around)
    _draw_numbers(ax, padded, float(np.abs(padded).max()) or 1.0, cell, inside)
    top, left = (at * stride - 0.5 for at, stride in zip(place, main.stride, strict=True))
    rows, columns = main.patch.shape[1:]
    colour, width = (_HERE, 2.2) if here else (_INK, 1.4)
    frame = Rectangle(
        (left, top), columns, rows, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3
    )
    ax.add_patch(frame)
    ax.set(xlim=(-0.5, padded.shape[1] - 0.5), ylim=(padded.shape[0] - 0.5, -0.5))
