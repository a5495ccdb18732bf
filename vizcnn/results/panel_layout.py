"""How the tiles of a panel are laid out: in how many columns, how large, and with what written over each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vizcnn.results.drawing import fit_text, measure_text, wrap_text
from vizcnn.results.page import measure_lines
from vizcnn.results.panels import Panel, format_number
from vizcnn.results.style import current_style

SPACE = 0.1
"""Inches between tiles, and below a panel's head."""

MARK = 0.11
"""Inches, the side of the square that ties a panel to its box on the photograph."""

_APART, _SPARED = 0.26, 6  # inches between groups of tiles; the part of a line, at most, that spaces between tiles take
_BAR, _LONGEST = 0.09, 1.6  # inches, the width of a colour bar, and its height at most
_EMPTY = 6.0  # what an empty last line costs, against a form that is e times too wide or too high
_IN_A_LINE = 6  # tiles that stand in one line if they are no more
_NAMED = 0.09  # inches over a tile, per point of the letters, that are enough for the ends of any name
_SMALLEST = 0.02  # inches, a tile's longer side


def choose_columns(count: int, aspect: float, shape: float) -> int:
    """How many tiles stand in a line, so that the last line is full, or nearly, and the whole has some form.

    aspect: of a tile, its width by its height. shape: the same of all tiles together."""
    if count <= _IN_A_LINE:
        return count

    def cost(columns: int) -> float:
        lines = -(-count // columns)
        return _EMPTY * (-count % columns) / columns + abs(math.log(columns * aspect / lines / shape))

    return min(range(2, count + 1), key=cost)


class PanelLayout:
    """Where everything in a panel lies, in inches from its upper left corner.

    panels: one, or several whose tiles of the same number stand beside each other, in groups.
    width: that the panel may take. shape: width by height of its tiles together, and tallest: their height in inches at
        most, where the panel does not say itself how many columns it has.
    lead: goes before the title. names: of the panels of a group, from left to right. marked: whether a square of a
        colour stands before the title.
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        width: float,
        *,
        shape: float = 1.4,
        tallest: float = math.inf,
        lead: str = "",
        names: Sequence[str] = (),
        marked: bool = False,
    ) -> None:
        style, panel = current_style(), panels[0]
        h, w = panel.values.shape[1:3]
        self.count, self.members = len(panel.values), len(panels)
        self.columns = min(self.count, panel.columns or choose_columns(self.count, self.members * w / h, shape))
        self.lines = -(-self.count // self.columns)
        self._gap = min(SPACE if self.members == 1 else _APART, width / self.columns / _SPARED)
        self._down = SPACE if panel.columns else min(SPACE, self._gap)  # in panels beside each other, lines go on
        self._close = min(0.04, self._gap / 4)  # between the members of a group
        self.ticks = _choose_ticks(*panel.limits[0]) if panel.has_bar else ()
        bar = max((_BAR + 0.2 + measure_text(format_number(tick), style.small) for tick in self.ticks), default=0.0)

        tallest = math.inf if panel.columns else tallest
        for texts in _list_labels(panel):
            self.label = _measure_label(texts)
            self._fit_tiles(panel, width - bar, tallest)
            if (labels := _fit_labels(texts, panel, max(0.0, self.group + self._gap - 0.05))) is not None:
                self.labels = labels
                break

        self.indent = MARK + 0.06 if marked else 0.0
        self.title = wrap_text(f"{lead}{panel.title}", width - self.indent, style.title)
        said = _describe(panels, names, self.labels)
        self.scale = [line for text in said for line in wrap_text(text, width, style.small)]
        self.head = measure_lines(len(self.title), style.title) + measure_lines(len(self.scale), style.small) + SPACE
        heads = [self.indent + measure_text(line, style.title) for line in self.title]
        heads += [measure_text(line, style.small) for line in self.scale]
        self.body = self.right + bar  # the width of the tiles and their colour bar
        self.width = max(self.body, *heads)
        tiles = self.lines * self.step[0] - self._down
        if tiles - self.label < measure_lines(4, style.small):  # too low for three numbers beside a colour bar
            self.ticks = self.ticks[:: len(self.ticks) - 1] if self.ticks else ()
            tiles = max(tiles, self.label + measure_lines(2.5, style.small) * bool(self.ticks))
        self.height = self.head + tiles

    def _fit_tiles(self, panel: Panel, width: float, tallest: float) -> None:
        """Make the tiles as large as they can be in this width and height, below labels of the height found so far."""
        h, w = panel.values.shape[1:3]
        low = tallest / self.lines - self.label - self._down
        across = (width - (self.columns - 1) * self._gap) / self.columns  # for a group
        wide = (across - (self.members - 1) * self._close) / self.members
        side = max(_SMALLEST, min(panel.side, wide * max(h, w) / w, low * max(h, w) / h))
        self.tile = side * h / max(h, w), side * w / max(h, w)  # height, width
        self.group = self.members * self.tile[1] + (self.members - 1) * self._close
        self.step = self.tile[0] + self.label + self._down, self.group + self._gap  # down, across
        self.right = self.columns * self.step[1] - self._gap  # of the last tile in a line

    def count_lines(self, height: float) -> int:
        """How many lines of tiles have room in so many inches, at least one."""
        return max(1, int((height - self.head) / self.step[0]))

    def align(self, head: float) -> None:
        """Make the head as high as that of a panel beside."""
        self.height += head - self.head
        self.head = head

    def corners(self, member: int = 0) -> Iterator[tuple[float, float]]:
        """Top and left of each tile of one of the panels."""
        for i in range(self.count):
            line, column = divmod(i, self.columns)
            left = column * self.step[1] + member * (self.tile[1] + self._close)
            yield self.head + self.label + line * self.step[0], left

    @property
    def bar(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the colour bar, beside the first lines."""
        top = self.head + self.label
        return self.right + SPACE, top, _BAR, min(self.height - top, _LONGEST)


def _measure_label(texts: Sequence[str]) -> float:
    """How high the highest of these labels is."""
    return measure_lines(max(text.count("\n") + 1 if text else 0 for text in texts), current_style().small)


def _list_labels(panel: Panel) -> list[tuple[str, ...]]:
    """What may stand over the tiles: their titles, the numbers of their channels, or nothing."""
    return [panel.titles, tuple(map(str, panel.channels)), ("",) * len(panel.channels)]


def _fit_labels(texts: Sequence[str], panel: Panel, width: float) -> list[str] | None:
    """The texts where all of them have room over a tile, or the ends of long titles; None where there is no room."""
    size = current_style().small
    if max(measure_text(text, size) for text in texts) <= width:
        return [*texts]
    if texts == panel.titles and (width >= _NAMED * size or panel.colours == "picture"):  # whose numbers say nothing
        return ["\n".join(fit_text(line, width, size) for line in text.split("\n")) for text in texts]
    return None


def _describe(panels: Sequence[Panel], names: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """The lines below a panel's title: which tile is which, and the scales."""
    panel = panels[0]
    if names:
        yield f"left {names[0]}, right {names[1]}" if len(names) == 2 else f"from the left: {', '.join(names)}"
    if not any(labels):
        yield f"line by line: channels {_list_channels(panel.channels)}"
    scales = dict.fromkeys(each.scale() for each in panels)
    yield from scales


def _list_channels(channels: Sequence[int]) -> str:
    """Channels in their order: the ends of a run of them, or the first few."""
    if list(channels) == list(range(channels[0], channels[0] + len(channels))):
        return f"{channels[0]} to {channels[-1]}"
    return ", ".join(map(str, channels[:10])) + ", …" * (len(channels) > 10)


def _choose_ticks(low: float, high: float) -> tuple[float, ...]:
    """Of a colour bar: its ends, and zero where that is not too near to one of them, else the middle."""
    share = -low / (high - low)
    return low, 0.0 if 0.15 < share < 0.85 else (low + high) / 2, high
