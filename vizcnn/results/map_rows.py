"""Maps of a few images as large panels: each image's photograph with what the network says of it, then its maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from vizcnn.results.drawing import (
    dim_unseen,
    draw_photo,
    fit_picture,
    fit_text,
    measure_axes,
    measure_text,
    new_figure,
    split_rows,
    wrap_text,
)
from vizcnn.results.maps import Maps
from vizcnn.results.overlay import choose_colours, draw_bar, draw_map, name_marks, say_trust
from vizcnn.results.page import Page, measure_caption, measure_lines
from vizcnn.results.panels import format_score
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _BAR, _SPACE = 0.14, 0.09, 0.05  # inches: around the page, of a colour bar's height, between parts of a panel
_BETWEEN = 0.22  # inches, from a line to the next
_WIDEST = 3.6  # inches, of a panel
_HIGHEST = 1.35  # of a panel: its height over its width
_NARROWEST = 15  # of a panel, in heights of its letters
_LABELS = 3  # predictions below a photograph, and lines of a legend


@dataclass(frozen=True)
class _Panel:
    """The photograph of image i where t is None, else its map for target t.

    bar: over how many panels, this one and those at its right, the colour bar below it reaches; 0 for none."""

    i: int
    t: int | None
    bar: int = 0


_Line = Sequence[_Panel]


class _Layout:
    """Lines of panels of this width in inches, as many beside each other as fit, measured and put on pages."""

    def __init__(self, result: Maps, side: float) -> None:
        self.result, self.side, style = result, side, current_style()
        self.gap = _choose_gap()
        self.head = measure_lines(1, style.title) + 0.03
        columns = int((style.width - 2 * _MARGIN + self.gap) / (side + self.gap) + 1e-6)
        self.lines = _list_lines(result, columns)
        self.width = min(style.width, max(map(len, self.lines)) * (side + self.gap) - self.gap + 2 * _MARGIN)
        rest = measure_caption(result.small_print, self.width, 2) + 2 * _MARGIN
        self.pages = split_rows([*map(self.measure_line, self.lines)], rest)

    def find_left(self, column: int) -> float:
        """The left edge of a column."""
        return _MARGIN + column * (self.side + self.gap)

    def measure_picture(self, panel: _Panel) -> tuple[float, float]:
        """Width and height of a panel's picture: as wide as the panel, if it does not become too high."""
        return fit_picture(self.result.photos[panel.i].size, self.side, _HIGHEST)

    def measure_pictures(self, line: _Line) -> float:
        """The height of the highest picture of a line."""
        return max(self.measure_picture(panel)[1] for panel in line)

    def measure_line(self, line: _Line) -> float:
        """The height of a line with its texts and the space below."""
        predictions = max(len(self.result.predictions[panel.i][:_LABELS]) * (panel.t is None) for panel in line)
        below = max(
            measure_lines(predictions, current_style().text), self.measure_words(line) + self._measure_bars(line)
        )
        return self.head + self.measure_pictures(line) + _SPACE + below + _BETWEEN

    def measure_words(self, line: _Line) -> float:
        """The height of the texts below a line's maps: what boxes are, and how far the maps can be believed."""
        lines = max(len(self.list_marks(panel)) + len(self.list_trust(panel)) for panel in line)
        return measure_lines(lines, current_style().small)

    def _measure_bars(self, line: _Line) -> float:
        """The height of a line's colour bars with their texts."""
        lines = max((len(self.list_legend(panel)) for panel in line if panel.bar), default=0)
        return (2 * _SPACE + _BAR + measure_lines(1 + lines, current_style().small)) * bool(lines)

    def measure_bar(self, panel: _Panel) -> float:
        """The width of the colour bar below a panel."""
        return panel.bar * (self.side + self.gap) - self.gap

    def list_marks(self, panel: _Panel) -> list[str]:
        """The lines below a map that say what its boxes are."""
        words = [] if panel.t is None else name_marks(self.result, panel.i, panel.t)
        return [part for text in words for part in wrap_text(text, self.side, current_style().small)]

    def list_trust(self, panel: _Panel) -> list[str]:
        """The lines below these that say how far a map can be believed; none where that was not asked for."""
        words = "" if panel.t is None else say_trust(self.result, panel.i, panel.t)
        return wrap_text(words, self.side, current_style().small)

    def list_legend(self, panel: _Panel) -> list[str]:
        """The lines below a colour bar."""
        assert panel.t is not None
        said = _describe_bar(self.result, panel.t)
        return wrap_text(said, self.measure_bar(panel), current_style().small, most=_LABELS)


def count_row_pages(result: Maps) -> int:
    """How many pages the panels of a result fill."""
    return len(_choose_layout(result).pages)


def draw_rows(result: Maps, page: int) -> Figure:
    """A page of the panels of a result."""
    layout = _choose_layout(result)
    lines = [layout.lines[k] for k in layout.pages[page - 1]]
    height = 2 * _MARGIN + sum(map(layout.measure_line, lines)) - _BETWEEN
    drawn, top = Page(layout.width, height, result.small_print, page, len(layout.pages)), _MARGIN
    for line in lines:
        for column, panel in enumerate(line):
            _draw_panel(drawn, layout, panel, layout.find_left(column), top, line)
        for column, panel in enumerate(line):
            _draw_bar(drawn, layout, panel, layout.find_left(column), top, line)
        top += layout.measure_line(line)
    return drawn.figure


def _choose_gap() -> float:
    return 0.12 if current_style().width < 5 else 0.18


def _choose_layout(result: Maps) -> _Layout:
    """The layout with the widest panels that still stand beside each other; with smaller ones, where that keeps all
    images on one page."""
    style, gap = current_style(), _choose_gap()
    room = style.width - 2 * _MARGIN
    most = int((room + gap) / (_NARROWEST * style.text / 72 + gap))
    beside = min(1 + len(result.meanings), most)
    widest = min(_WIDEST, (room + gap) / beside - gap)
    first = _Layout(result, widest)
    for columns in range(beside + 1, most + 1) if len(first.pages) > 1 else ():
        smaller = _Layout(result, (room + gap) / columns - gap)
        if len(smaller.pages) == 1:
            return smaller
    return first


def _list_lines(result: Maps, columns: int) -> list[_Line]:
    """Each image's panels in as few lines as possible, evenly; several images in a line where there is room."""
    rows, count = [_list_panels(result, i) for i in range(len(result.photos))], 1 + len(result.meanings)
    if together := columns // count:
        return [[*chain(*rows[at : at + together])] for at in range(0, len(rows), together)]
    length = -(-count // -(-count // columns))
    return [_add_bars(result, row[at : at + length]) for row in rows for at in range(0, count, length)]


def _list_panels(result: Maps, i: int) -> list[_Panel]:
    """An image's photograph and maps; one colour bar for maps that mean the same, else one for each."""
    return _add_bars(result, [_Panel(i, None), *(_Panel(i, t) for t in range(len(result.meanings)))])


def _add_bars(result: Maps, line: _Line) -> list[_Panel]:
    """A line of one image's panels with its colour bars: one for maps that mean the same, else one for each."""
    maps = [panel for panel in line if panel.t is not None]
    shared = len(set(result.meanings)) == 1
    bars = {panel: (len(maps) * (k == 0) if shared else 1) for k, panel in enumerate(maps)}
    return [_Panel(panel.i, panel.t, bars.get(panel, 0)) for panel in line]


def _describe_bar(result: Maps, t: int) -> str:
    """What a colour bar says."""
    return f"{result.meanings[t]}; weak values are transparent"


def _draw_panel(page: Page, layout: _Layout, panel: _Panel, left: float, top: float, line: _Line) -> None:
    """Draw a panel with its texts; `left` and `top` are of its upper left corner."""
    result, style = layout.result, current_style()
    page.write(left, top, _name_panel(result, panel, layout.side), style.title)
    top += layout.head
    ax = page.add_axes(left, top, *layout.measure_picture(panel))
    top += layout.measure_pictures(line) + _SPACE
    if panel.t is None:
        photo = result.photos[panel.i]
        draw_photo(ax, photo)
        dim_unseen(ax, photo.size, result.seen[panel.i])
        _write_predictions(page, result, panel.i, left, top, layout.side)
        return
    draw_map(ax, result, panel.i, panel.t)
    marks = layout.list_marks(panel)
    page.write(left, top, "\n".join(marks), style.small, color=style.muted)
    page.write(left, top + measure_lines(len(marks), style.small), "\n".join(layout.list_trust(panel)), style.small)


def _draw_bar(page: Page, layout: _Layout, panel: _Panel, left: float, top: float, line: _Line) -> None:
    """Draw the colour bar below a panel, where it has one, with its texts."""
    if panel.t is None or not panel.bar:
        return
    size = current_style().small
    top += layout.head + layout.measure_pictures(line) + _SPACE + layout.measure_words(line) + _SPACE
    ax = page.add_axes(left, top, layout.measure_bar(panel), _BAR)
    draw_bar(ax, choose_colours(layout.result, panel.i, panel.t))
    top += _BAR + _SPACE + measure_lines(1, size)
    page.write(left, top, "\n".join(layout.list_legend(panel)), size)


def _name_panel(result: Maps, panel: _Panel, width: float) -> str:
    """A photograph's name, or a map's target with its score."""
    size = current_style().title
    if panel.t is None:
        return fit_text(result.photos[panel.i].name, width, size)
    score = f", score {format_score(result.scores[panel.i, panel.t], result.meanings[panel.t])}"
    return fit_text(result.provenance.targets[panel.i][panel.t], width - measure_text(score, size), size) + score


def _write_predictions(page: Page, result: Maps, i: int, left: float, top: float, width: float) -> None:
    """The classes that the network names, below each other: shares at the right of a narrow column, then names."""
    size, best = current_style().text, result.predictions[i][:_LABELS]
    shares = [f"{each.said(100, 1)}%" for each in best]
    column = max((measure_text(share, size) for share in shares), default=0.0)
    for k, (share, each) in enumerate(zip(shares, best, strict=True)):
        down = top + measure_lines(k, size)
        page.write(left + column, down, share, size, ha="right")
        page.write(left + column + 0.08, down, fit_text(each.label, width - column - 0.08, size), size)


def plot_map(result: Maps, ax: Axes | None, i: int, t: int) -> Axes:
    """Draw one map with its colour bar into axes, or into those of a new figure, all texts fitted to their size."""
    from matplotlib.cm import ScalarMappable

    style, colours = current_style(), choose_colours(result, i, t)
    if ax is None:
        width = min(5.6, style.width)
        height, across = result.photos[i].size
        wide = 0.75 * width  # about what the map gets
        below = measure_lines(len(wrap_text(say_trust(result, i, t), wide, style.small)), style.small)
        ax = new_figure(width, 0.6 + min(_HIGHEST, max(0.4, height / across)) * wide + below).add_subplot()
    draw_map(ax, result, i, t)
    width, high = measure_axes(ax)
    method = result.provenance.details.get("method", result.provenance.probe)
    score = f", score {format_score(result.scores[i, t], result.meanings[t])}"
    name = f"{method}: {result.provenance.targets[i][t]}"
    ax.set_title(fit_text(name, width - measure_text(score, style.title), style.title) + score, fontsize=style.title)
    texts = [*name_marks(result, i, t), say_trust(result, i, t)]
    words = [part for text in texts for part in wrap_text(text, width, style.small)]
    ax.set_xlabel("\n".join(words), fontsize=style.small, loc="left")
    bar = ax.figure.colorbar(
        ScalarMappable(colours.norm, colours.ramp()), extend=colours.extend, ax=ax, fraction=0.046, pad=0.03
    )
    legend = wrap_text(_describe_bar(result, t), high * 0.9, style.small, most=_LABELS)
    bar.set_label("\n".join(legend), fontsize=style.small)
    return ax
