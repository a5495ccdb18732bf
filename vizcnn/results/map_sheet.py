"""Maps of many images as a contact sheet: small tiles, each a map over its photograph, with a short label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vizcnn.geometry import Box
from vizcnn.results.drawing import draw_frame, fit_picture, fit_text, measure_text, split_rows, wrap_text
from vizcnn.results.maps import Maps
from vizcnn.results.overlay import Colours, choose_colours, draw_bar, paint_map
from vizcnn.results.page import Page, measure_caption, measure_lines
from vizcnn.results.panels import format_score
from vizcnn.results.style import current_style
from vizcnn.results.trust import name_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _GAP, _BETWEEN = 0.14, 0.12, 0.14  # inches: around the page, between tiles, between lines
_BAR, _BAR_WIDTH = 0.09, 1.7  # inches, of the colour bar
_NARROWEST = 11  # of a tile, in heights of its letters
_HIGHEST = 1.25  # of a tile: its height over its width
_PIXELS = 300  # of the longer side of a tile


@dataclass(frozen=True)
class _Tile:
    """The map of image i for target t, in a column."""

    column: int
    i: int
    t: int


@dataclass(frozen=True)
class _Line:
    """Tiles beside each other; headings stand above, each from its column on."""

    tiles: tuple[_Tile, ...]
    headings: tuple[tuple[int, str], ...] = ()


class _Layout:
    """The tiles of a result in lines and pages, measured in inches."""

    def __init__(self, result: Maps) -> None:
        self.result, style = result, current_style()
        room = style.width - 2 * _MARGIN
        self.columns = max(1, int((room + _GAP) / (_NARROWEST * style.small / 72 + _GAP)))
        self.side = (room + _GAP) / self.columns - _GAP
        self.beside = room > 3 * _BAR_WIDTH  # whether the legend's text stands beside its bar, else below it
        self.legend = wrap_text(_describe_scale(result), room - (_BAR_WIDTH + 0.2) * self.beside, style.small)
        self.head = measure_lines(1, style.title) + 0.06 + self._measure_legend() + _BETWEEN
        self.lines = [*_list_lines(result, self.columns)]
        rest = measure_caption(result.small_print, style.width, 2) + _MARGIN + self.head
        self.pages = split_rows([*map(self.measure_line, self.lines)], rest)

    def measure_picture(self, i: int) -> tuple[float, float]:
        """Width and height of the tiles of image i."""
        return fit_picture(self.result.photos[i].size, self.side, _HIGHEST)

    def find_left(self, column: int) -> float:
        """The left edge of a column."""
        return _MARGIN + column * (self.side + _GAP)

    def measure_pictures(self, line: _Line) -> float:
        """The height of the highest picture of a line."""
        return max(self.measure_picture(tile.i)[1] for tile in line.tiles)

    def measure_headings(self, line: _Line) -> float:
        """The height of what stands above the tiles of a line."""
        return (measure_lines(1, current_style().text) + 0.05) * bool(line.headings)

    def measure_line(self, line: _Line) -> float:
        """The height of a line with its headings, its labels and the space below."""
        labels = max(len(self.list_labels(tile)) for tile in line.tiles)
        texts = 0.03 + measure_lines(labels, current_style().small)
        return self.measure_headings(line) + self.measure_pictures(line) + texts + _BETWEEN

    def list_labels(self, tile: _Tile) -> list[tuple[str, str]]:
        """The lines below a tile, each with the number at its end: the image's name, the target with its score, the
        class that the network names, and how far the map can be believed."""
        result, i, t = self.result, tile.i, tile.t
        target = result.provenance.targets[i][t]
        lines = [(result.photos[i].name, ""), (target, format_score(result.scores[i, t], result.meanings[t]))]
        for best in result.predictions[i][:1]:
            words = "predicted" if best.label == target else f"seen as {best.label}"
            lines.append((words, f"{best.said(100, 0)}%"))
        verdict = name_verdict(result.trust[i][t]) if result.trust else ""
        return lines + [(line, "") for line in wrap_text(verdict, self.side, current_style().small)]

    def measure_bar(self) -> float:
        """The height of the colour bar with its numbers."""
        return _BAR + 0.07 + measure_lines(1, current_style().small)

    def _measure_legend(self) -> float:
        size = current_style().small
        parts = measure_lines(len(self.legend), size), self.measure_bar()
        return max(parts) if self.beside else sum(parts)


def count_sheet_pages(result: Maps) -> int:
    """How many pages the tiles of a result fill."""
    return len(_Layout(result).pages)


def draw_sheet(result: Maps, page: int) -> Figure:
    """A page of the tiles of a result."""
    layout, style = _Layout(result), current_style()
    lines = [layout.lines[k] for k in layout.pages[page - 1]]
    height = _MARGIN + layout.head + sum(map(layout.measure_line, lines))
    drawn = Page(style.width, height, result.small_print, page, len(layout.pages))
    colours = {(tile.i, tile.t): choose_colours(result, tile.i, tile.t) for line in lines for tile in line.tiles}
    _draw_head(drawn, layout, [*colours.values()])
    ground = drawn.add_ground()
    top = _MARGIN + layout.head
    for line in lines:
        for column, heading in line.headings:
            room = drawn.width / len(line.headings) - _MARGIN - _GAP
            text = fit_text(heading, room, style.text)
            drawn.write(layout.find_left(column), top, text, style.text, color=style.muted)
        top += layout.measure_headings(line)
        for tile in line.tiles:
            bottom = top + layout.measure_pictures(line)
            _draw_tile(ground, layout, tile, colours[tile.i, tile.t], bottom)
            _write_label(drawn, layout, tile, bottom + 0.03)
        top += layout.measure_line(line) - layout.measure_headings(line)
    return drawn.figure


def _describe_scale(result: Maps) -> str:
    """What the colours of all tiles say, and what they share."""
    end = f"the {result.percentile:g}th percentile" if result.percentile < 100 else "the largest value"
    own = "the maps of an image that mean the same share a scale" if len(result.meanings) > 1 else "each its own scale"
    meanings = " / ".join(dict.fromkeys(result.meanings))
    boxes = {mark.text for row in result.marks for mark in row if mark}
    box = f". Box: {boxes.pop()}" if len(boxes) == 1 else ""
    return (
        f"{meanings}{box}. Colours end at {end} of the image ({own}); weak values are transparent. "
        "Below a tile: its image, the target with its score, the predicted class with its probability"
        + ", how far the map can be believed"
        * bool(result.trust)
    )


def _list_lines(result: Maps, columns: int) -> Iterator[_Line]:
    """Tiles in lines: the best and the worst images first, beside each other where there is room, then the others."""
    targets, count = len(result.meanings), len(result.photos)
    together = max(1, columns // targets)  # images in a line
    scores = result.scores[:, 0]
    if not np.isfinite(scores).all() or scores.min() == scores.max():
        yield from _fill_lines(range(count), "", targets, columns)
        return
    order = np.argsort(-scores, kind="stable").tolist()
    few = max(1, min(together // 2, count // 2))
    best, worst = order[: max(few, min(together - few, count // 2))], order[: -few - 1 : -1]
    first = "" if targets == 1 else f" for {_name_target(result)}"
    upper, lower = f"highest score{first}", f"lowest score{first}"
    if together > 1:
        half = (together - together // 2) * targets
        (left,), (right,) = (_fill_lines(some, "", targets, columns) for some in (best, worst))
        moved = tuple(_Tile(tile.column + half, tile.i, tile.t) for tile in right.tiles)
        yield _Line((*left.tiles, *moved), ((0, upper), (half, lower)))
    else:
        yield from _fill_lines(best, upper, targets, columns)
        yield from _fill_lines(worst, lower, targets, columns)
    others = [i for i in range(count) if i not in {*best, *worst}]
    if others:
        heading = f"{len(others)} other{'s' * (len(others) > 1)}, in the order of the result"
        yield from _fill_lines(others, heading, targets, columns)


def _name_target(result: Maps) -> str:
    """The first target, where it is the same for all images."""
    names = {row[0] for row in result.provenance.targets}
    return names.pop() if len(names) == 1 else "the first target"


def _fill_lines(images: Sequence[int], heading: str, targets: int, columns: int) -> list[_Line]:
    """Lines of these images' tiles. An image begins a new line where its tiles do not fit into what is left of one."""
    lines, tiles = list[list[_Tile]](), list[_Tile]()
    for i in images:
        if tiles and len(tiles) + targets > columns:
            lines.append(tiles)
            tiles = []
        for t in range(targets):
            if len(tiles) == columns:
                lines.append(tiles)
                tiles = []
            tiles.append(_Tile(len(tiles), i, t))
    return [_Line(tuple(each), ((0, heading),) if heading and k == 0 else ()) for k, each in enumerate([*lines, tiles])]


def _draw_head(page: Page, layout: _Layout, colours: Sequence[Colours]) -> None:
    """Write what the sheet holds, and the legend of its colours."""
    result, style, top = layout.result, current_style(), _MARGIN
    method = result.provenance.details.get("method", result.provenance.probe)
    title = f"{method}, {result.provenance.model}: {len(result.photos)} images"
    title = fit_text(title, page.width - 2 * _MARGIN, style.title, "bold")
    page.write(_MARGIN, top, title, style.title, weight="bold")
    top += measure_lines(1, style.title) + 0.06
    noise = float(np.mean([each.noise / each.end for each in colours]))
    ends = ("−end", "0", "end") if result.signed else ("0", "", "end")
    draw_bar(page.add_axes(_MARGIN, top, _BAR_WIDTH, _BAR), Colours(1.0, noise, result.signed), ends)
    left = _MARGIN + (_BAR_WIDTH + 0.2) * layout.beside
    top += -0.02 if layout.beside else layout.measure_bar()
    page.write(left, top, "\n".join(layout.legend), style.small, color=style.muted)


def _draw_tile(ax: Axes, layout: _Layout, tile: _Tile, colours: Colours, bottom: float) -> None:
    """Draw a tile with its box into axes in inches; `bottom` is its lower edge."""
    result, photo, i, t = layout.result, layout.result.photos[tile.i], tile.i, tile.t
    (wide, high), left = layout.measure_picture(i), layout.find_left(tile.column)
    pixels = paint_map(photo, result.seen[i], result.values[i, t], colours, _PIXELS)
    ax.imshow(pixels, extent=(left, left + wide, bottom, bottom - high), aspect="auto")
    if mark := result.marks[i][t]:
        box = mark.box.map_onto(photo.size, Box(bottom - high, left, bottom, left + wide))
        draw_frame(ax, box, "black", "white", 0.8)


def _write_label(page: Page, layout: _Layout, tile: _Tile, top: float) -> None:
    """Write the lines below a tile, each with its number at the right."""
    style, left = current_style(), layout.find_left(tile.column)
    for k, (name, number) in enumerate(layout.list_labels(tile)):
        down = top + measure_lines(k, style.small)
        room = layout.side - measure_text(number, style.small) - 0.06 * bool(number)
        colour = style.ink if k == 1 else style.muted
        page.write(left, down, fit_text(name, room, style.small), style.small, color=colour)
        page.write(left + layout.side, down, number, style.small, ha="right", color=colour)
