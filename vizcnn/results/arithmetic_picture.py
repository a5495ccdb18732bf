"""How a unit's arithmetic is drawn: patches, kernels and products as grids of numbers, and the sum below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vizcnn.results.drawing import fit_text
from vizcnn.results.page import Page, measure_lines
from vizcnn.results.panels import format_number
from vizcnn.results.style import current_style
from vizcnn.results.sums import Addend, Numbers, UnitSum
from vizcnn.results.tiles import make_photo_strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _GAP = 0.2, 0.32  # inches: around all, and between grids, where the signs stand
_SHOWN = 6  # channels that are drawn, those that add most
_TALLEST, _CELL = 1.15, 0.46  # inches: of a grid, and of one of its cells
_SMALLEST = 4.6  # points, of the numbers in cells; where they would be smaller there are none
_LETTERS = 4.6  # of a number's letters side by side, in the height of one
_MOST_PLACES, _LONGEST = 36, 8  # of a map that the kernel slides over: its places, and its side
_TILE = 0.95  # inches, of a map in the picture of the sliding


def has_sliding(unit: UnitSum) -> bool:
    """Whether the kernel of a unit can be drawn at all places."""
    return unit.whole is not None and len(_list_places(unit)) <= _MOST_PLACES and max(unit.whole.shape) <= _LONGEST


def draw_unit(unit: UnitSum, small_print: str, page: int, pages: int) -> Figure:
    """The photograph, the channels of the main path that add most as grids of numbers, and all that is added up."""
    style = current_style()
    main = next((addend for addend in unit.addends if addend.weights is not None), None)
    chosen = [] if main is None else [int(i) for i in np.argsort(-np.abs(main.sums), kind="stable")[:_SHOWN]]
    photo = make_photo_strip(unit.scene)
    left = _MARGIN + photo.width + 0.35
    room = style.width - left - _MARGIN - 1.0
    height, width = (1, 1) if main is None else main.patch.shape[1:]
    cell = min(_CELL, _TALLEST / height, (room - 2 * _GAP) / (3 * width))
    head = measure_lines(3.2, style.title)
    row = cell * height + measure_lines(1.5, style.small)
    lines = [*_list_lines(unit)]
    rest = 0 if main is None else len(main.sums) - len(chosen)
    grids = row * len(chosen) + measure_lines(1.6 * bool(chosen) + 1.6 * bool(rest), style.text)
    below = head + grids + 0.12
    total = max(below + measure_lines(1.25 * len(lines) + 0.6, style.text), head + photo.height) + _MARGIN
    made = Page(style.width, total, small_print, page, pages)
    made.write(_MARGIN, _MARGIN * 0.6, fit_text(_title(unit), style.width - 2 * _MARGIN, style.title), style.title)
    photo.draw(made, _MARGIN, head)
    if main is not None:
        _draw_grids(made, main, chosen, (left, head), cell, row)
    for k, (number, text, strong) in enumerate(lines):
        top = below + measure_lines(1.25 * k, style.text)
        weight = "bold" if strong else "normal"
        made.write(left + 0.85, top, number, style.text, ha="right", weight=weight)
        made.write(left + 1.0, top, fit_text(text, style.width - left - 1.2, style.text), style.text, weight=weight)
    return made.figure


def _title(unit: UnitSum) -> str:
    return f"{unit.name}: every number of it"


def _list_lines(unit: UnitSum) -> Iterator[tuple[str, str, bool]]:
    """What is added up, a number and its words each, and whether it is a result."""
    for addend in unit.addends:
        yield _sign(addend.value, addend is not unit.addends[0]), addend.describe(), False
    norms = " and what the norms add" if any(addend.norm for addend in unit.addends) else ""
    yield _sign(unit.bias, True), f"bias{norms}", False
    yield f"= {format_number(unit.before)}", "in all", not unit.activation
    if unit.activation:
        yield f"= {format_number(unit.after)}", f"behind {unit.activation}", True
    yield format_number(unit.said), "is what the network itself gives", False


def _sign(value: float, follows: bool) -> str:
    if not follows:
        return format_number(value)
    return f"{'+' if value >= 0 else '-'} {format_number(abs(value))}"


def _draw_grids(
    page: Page, main: Addend, chosen: Sequence[int], corner: tuple[float, float], cell: float, row: float
) -> None:
    """A row for each channel: its patch, times its kernel, is the products, and their sum."""
    assert main.weights is not None
    style, (left, top) = current_style(), corner
    _, height, width = main.patch.shape
    step = cell * width + _GAP
    for k, name in enumerate(("reads", "weights", "products")):
        page.write(left + k * step, top, fit_text(name, step, style.text), style.text, color=style.muted)
    page.write(left + 3 * step + 0.05, top, "sum", style.text, color=style.muted)
    top += measure_lines(1.6, style.text)
    scales = [float(np.abs(each).max()) or 1.0 for each in (main.patch[chosen], main.weights[chosen])]
    scales.append(float(np.abs(main.products[chosen]).max()) or 1.0)
    for i in chosen:
        page.write(left, top, fit_text(main.reads[i], 3 * step, style.small), style.small)
        down = top + measure_lines(1.2, style.small)
        numbers = (main.patch[i], main.weights[i], main.products[i])
        for k, (grid, scale) in enumerate(zip(numbers, scales, strict=True)):
            ax = page.add_axes(left + k * step, down, cell * width, cell * height)
            draw_numbers(ax, grid, scale, cell, main.inside if k != 1 else None)
        middle = down + cell * height / 2 - 0.6 * style.text / 72
        for k, sign in enumerate(("x", "=", "=")):
            page.write(left + (k + 1) * step - _GAP / 2, middle, sign, style.text, ha="center", color=style.muted)
        page.write(left + 3 * step + 0.05, middle, format_number(float(main.sums[i])), style.text)
        top += row
    if rest := len(main.sums) - len(chosen):
        several = f"the other {rest:,} channels together" if rest > 1 else "the other channel"
        others = format_number(float(np.delete(main.sums, chosen).sum()))
        page.write(left, top + 0.05, several, style.text, color=style.muted)
        page.write(left + 3 * step + 0.05, top + 0.05, others, style.text)


def draw_numbers(ax: Axes, grid: Numbers, scale: float, cell: float, inside: Any = None) -> None:
    """A grid (rows, columns) as colours, orange above zero and blue below, with its numbers where there is room.

    scale: the number of the strongest colour. cell: a side in inches. inside: bool, the places that are on the map; the
    others are padding, and hatched."""
    style = current_style()
    ax.imshow(grid, cmap="PuOr_r", vmin=-1.6 * scale, vmax=1.6 * scale, aspect="auto", interpolation="nearest")
    ax.spines[:].set(color=style.faint, linewidth=0.6)
    if inside is not None:
        for y, x in np.argwhere(~inside):
            ax.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=style.faint, hatch="////", lw=0, alpha=0.6)
    points = min(style.small, 72 * cell / _LETTERS * 1.55)
    if points < _SMALLEST:
        return
    for (y, x), value in np.ndenumerate(grid):
        text = _write_short(float(value))
        ax.text(x, y, text, ha="center", va="center", fontsize=min(points, points * 4.2 / len(text)), color="#1a1a1a")


def _write_short(value: float) -> str:
    """A number in at most five letters."""
    if value == 0:
        return "0"
    if abs(value) >= 99.5:
        return f"{value:.0f}"
    text = f"{value:.1f}" if abs(value) >= 9.95 else f"{value:.2f}"
    return text.replace("-0.00", "0.00").replace("-0.", "-.").removeprefix("0")


def _list_places(unit: UnitSum) -> list[tuple[int, int]]:
    """The places at which the kernel of the main path stands, row by row."""
    assert unit.whole is not None
    kernel = unit.addends[0].patch.shape[1:]
    counts = [
        (length + 2 * padding - side) // stride + 1
        for length, padding, side, stride in zip(unit.whole.shape, unit.padding, kernel, unit.stride, strict=True)
    ]
    return [(y, x) for y in range(counts[0]) for x in range(counts[1])]


def draw_sliding(unit: UnitSum, small_print: str, page: int, pages: int) -> Figure:
    """The kernel at each place of the only map that it reads, with the sum of products there."""
    from matplotlib.patches import Rectangle

    style, whole, main = current_style(), unit.whole, unit.addends[0]
    assert whole is not None
    assert main.weights is not None
    places = _list_places(unit)
    columns = max(x for _, x in places) + 1
    room = style.width - 2 * _MARGIN
    tile = min(_TILE * 1.6, room / columns - 0.14)
    cell = tile / max(whole.shape)
    wide, high = cell * whole.shape[1], cell * whole.shape[0]
    head = measure_lines(3, style.title)
    step = high + measure_lines(1.9, style.small)
    made = Page(style.width, head + step * (max(y for y, _ in places) + 1) + _MARGIN, small_print, page, pages)
    title = f"{unit.name}: the kernel at every place, and the sum of its products there"
    made.write(_MARGIN, _MARGIN * 0.6, fit_text(title, room, style.title), style.title)
    scale = float(np.abs(whole).max()) or 1.0
    padded = np.pad(whole, [(p, p) for p in unit.padding])
    for y, x in places:
        left, top = _MARGIN + x * (room / columns), head + y * step
        ax = made.add_axes(left, top, wide, high)
        draw_numbers(ax, whole, scale, cell)
        first = (y * unit.stride[0] - unit.padding[0], x * unit.stride[1] - unit.padding[1])
        rows, across = main.patch.shape[1:]
        here = (y, x) == unit.place
        colour = "#d55e00" if here else style.ink
        corner = (first[1] - 0.5, first[0] - 0.5)
        ax.add_patch(Rectangle(corner, across, rows, fill=False, edgecolor=colour, linewidth=1.6 if here else 1.1))
        ax.set(xlim=(-0.5, whole.shape[1] - 0.5), ylim=(whole.shape[0] - 0.5, -0.5))
        at = (y * unit.stride[0], x * unit.stride[1])
        total = float((padded[at[0] : at[0] + rows, at[1] : at[1] + across] * main.weights[0]).sum())
        weight = "bold" if here else "normal"
        made.write(left + wide / 2, top + high + 0.03, format_number(total), style.small, ha="center", weight=weight)
    return made.figure
