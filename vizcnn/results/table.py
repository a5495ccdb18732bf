"""Table: rows of plain values under named columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.results.base import Result
from vizcnn.results.drawing import check_page, fit_text, measure_text, new_figure, split_rows, wrap_text
from vizcnn.results.page import NARROWEST, Page, measure_caption
from vizcnn.results.records import make_even
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = str | int | float | tuple[int | float, ...] | None
"""A text, a number, several numbers that belong together such as (down, across), or None where nothing applies."""

_MARGIN, _BETWEEN, _CLOSEST = 0.15, 0.22, 0.1  # inches: around the table, between columns, and in a wide table
_SMALLER = 0.82  # of the letters' height, in a wide table, before texts are cut
_SPARE = 0.01  # inches, by which a name may be wider than the column that was measured for it
_SHORTEST, _FINDING = 0.9, 5.5  # inches: that a column of texts may be cut to, and for findings below a narrow table
_WIDEST = 7.0  # inches, for a table that is too wide for one column of a paper
_TALLEST = 400.0  # inches; more rows are drawn closer together


@dataclass(frozen=True)
class Printed:
    """The columns and rows of a table that text and picture show, and a row of totals that stands below a line."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] = ()

    def format_rows(self) -> list[list[str]]:
        """The cells of all rows in words, and of the totals, one line each."""
        return [[_format_cell(cell).replace("\n", " ") for cell in row] for row in (*self.rows, *self._totals())]

    def list_texts(self) -> list[bool]:
        """Whether each column holds texts, which stand to the left."""
        return [all(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]

    def _totals(self) -> tuple[tuple[Cell, ...], ...]:
        return (self.total,) if self.total else ()


@dataclass(frozen=True)
class Table(Result):
    """Rows of plain values.

    columns: the names of the columns, with units.
    rows: one cell for each column.
    findings: sentences about the whole, such as totals.
    """

    whole_in_json: ClassVar[bool] = True

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    findings: tuple[str, ...]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of numbers by name: (rows,), or (rows, k) for cells of k numbers; float64, NaN for None."""
        columns = ([row[i] for row in self.rows] for i in range(len(self.columns)))
        found = zip(self.columns, map(_to_array, columns), strict=True)
        return {name: numbers for name, numbers in found if numbers is not None}

    def summary(self) -> dict[str, Any]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"findings": list(self.findings), "rows": rows}

    def records(self) -> list[dict[str, Any]]:
        """One for each row. Cells of several numbers are split as in `arrays()`: `field [px]` into `field [px] 0` for
        down and `field [px] 1` for across. Where their lengths differ they become texts, such as `3x3`."""
        numbers = self.arrays()
        return make_even(
            {
                key: value
                for name, cell in zip(self.columns, row, strict=True)
                for key, value in _split_cell(name, cell, numbers.get(name))
            }
            for row in self.rows
        )

    def describe(self) -> str:
        return "\n".join([*self.lines(), "", *self.findings])

    @property
    def printed(self) -> Printed:
        """What text and picture show: here all of it."""
        return Printed(self.columns, self.rows)

    def lines(self) -> list[str]:
        """The header and the rows as text, columns aligned: numbers to the right, texts to the left.

        A name that is wider than its column takes several lines, so that lines stay short."""
        printed = self.printed
        columns = list(zip(*printed.format_rows(), strict=True)) or [() for _ in printed.columns]
        names = [
            wrap(name, max(map(len, (*column, *name.split())), default=1))
            for name, column in zip(printed.columns, columns, strict=True)
        ]
        high = max(map(len, names), default=1)
        whole = [(*[""] * (high - len(name)), *name, *column) for name, column in zip(names, columns, strict=True)]
        aligned = [_align(column, to_left) for column, to_left in zip(whole, printed.list_texts(), strict=True)]
        return ["  ".join(cells).rstrip() for cells in zip(*aligned, strict=True)]

    @property
    def pages(self) -> int:
        return len(TableLayout(self).pages)

    def figure(self, page: int = 1) -> Figure:
        """A page of the table, every other row on grey; the findings stand below the last row."""
        layout = TableLayout(self)
        check_page(page, len(layout.pages))
        lines, width = layout.pages[page - 1], max(layout.width, min(NARROWEST, current_style().width))
        height = layout.measure(lines)
        made = Page(width, height, self.small_print, page, len(layout.pages))
        layout.draw(made.add_axes(0, 0, layout.width, height), lines)
        return made.figure

    def plot(self, ax: Axes | None = None) -> Axes:
        """Write the whole table, then the findings, on `ax` or on a new figure of their size. Returns the Axes.

        Letters keep their size: axes that are too small for all lines show them closer together."""
        layout = TableLayout(self)
        if ax is None:
            figure = new_figure(layout.width, min(layout.measure(layout.lines), _TALLEST), layout=None)
            ax = figure.add_axes((0, 0, 1, 1))
        return layout.draw(ax, layout.lines)


class TableLayout:
    """Where everything of a table lies, in inches from the upper left corner: its rows, then a free line and findings.

    above: the height of what stands above it on a page. printed: what is shown, if not all that the text shows. lines:
    of both. pages: the lines of each page. ruled: the rows that a line is drawn above, beside the first of a page.

    Names of columns take several lines rather than widen a column. Where the columns are too wide for the style, they
    stand closer together, letters become a little smaller, and then texts lose their middles; where that is not enough
    the table takes both columns of a paper, and at last letters become as small as they must.
    """

    def __init__(self, table: Table, above: float = 0.0, printed: Printed | None = None) -> None:
        style = current_style()
        printed = printed or table.printed
        self.cells, self.is_text = printed.format_rows(), printed.list_texts()
        self.ruled = {len(printed.rows)} if printed.total else set()
        self.points, self.between, room = style.text, _BETWEEN, style.width - 2 * _MARGIN
        self.widths = [
            max(self._measure([max(name.split(), key=len, default="")]), self._measure([row[i] for row in self.cells]))
            for i, name in enumerate(printed.columns)
        ]
        if self.widths[1:] and (over := self._add_up() - room) > 0:
            self.between = max(_CLOSEST, self.between - over / len(self.widths[1:]))
        self._cut_texts(self.cells, room / _SMALLER)
        room = max(room, min(_WIDEST - 2 * _MARGIN, self._add_up()))
        if (smaller := room / max(room, self._add_up())) < 1:
            self.points *= smaller
            self.between *= smaller
            self.widths = [width * smaller for width in self.widths]
        self.names = [
            wrap_text(name, width + _SPARE, self.points)
            for name, width in zip(printed.columns, self.widths, strict=True)
        ]
        widest = max(self._add_up(), min(room, _FINDING) if table.findings else 0.0)
        self.findings = [line for each in table.findings for line in wrap_text(each, widest, self.points)]
        self.line = 1.55 * self.points / 72  # the height of a row
        self.top = self.line * max(map(len, self.names), default=0) + _MARGIN
        self.width = widest + 2 * _MARGIN
        self.lines = range(len(self.cells) + bool(self.findings) + len(self.findings))
        rest = above + self.top + _MARGIN + measure_caption(table.small_print, NARROWEST, 2)
        self.pages = split_rows([self.line] * len(self.lines), rest)

    def measure(self, lines: range) -> float:
        """The height of these lines below the names of the columns."""
        return self.top + self.line * len(lines) + _MARGIN

    def _measure(self, texts: Sequence[str]) -> float:
        return max((measure_text(text, self.points) for text in texts), default=0.0)

    def _add_up(self) -> float:
        return sum(self.widths) + self.between * (len(self.widths) - 1)

    def _cut_texts(self, cells: list[list[str]], room: float) -> None:
        """Narrow the widest columns of texts as far as that is needed."""
        texts = sorted((i for i, is_text in enumerate(self.is_text) if is_text), key=lambda i: -self.widths[i])
        for i in texts:
            over = self._add_up() - room
            if over <= 0:
                return
            self.widths[i] = max(min(self.widths[i], _SHORTEST), self.widths[i] - over)
            for row in cells:
                row[i] = fit_text(row[i], self.widths[i], self.points)

    def draw(self, ax: Axes, lines: range) -> Axes:
        """Write these lines on axes that are used for nothing else."""
        from vizcnn.results.column import Column

        style, rows = current_style(), self.cells[lines.start : lines.stop]
        ax.set_axis_off()
        ax.set(xlim=(0, self.width), ylim=(self.measure(lines), 0))
        for y in range(1, len(rows), 2):
            top = self.top + y * self.line
            ax.axhspan(top, top + self.line, color=style.faint, alpha=0.45, lw=0)
        for ruled in self.ruled.intersection(lines) | {lines.start}:
            height = self.top + (ruled - lines.start) * self.line
            ax.plot([_MARGIN, self.width - _MARGIN], [height, height], color=style.muted, lw=0.6)
        x = _MARGIN
        for i, width in enumerate(self.widths):
            side, place = ("left", x) if self.is_text[i] else ("right", x + width)
            look: dict[str, Any] = {"fontsize": self.points, "ha": side}
            ax.text(place, self.top - 0.05, "\n".join(self.names[i]), va="bottom", color=style.muted, **look)
            ax.add_artist(Column(place, self.top + self.line / 2, [row[i] for row in rows], self.line, **look))
            x += width + self.between
        first = len(self.cells) + 1
        for y, finding in enumerate(self.findings, first - lines.start):
            if 0 <= y < len(lines):
                ax.text(_MARGIN, self.top + (y + 0.5) * self.line, finding, va="center", fontsize=self.points)
        return ax


def _format_cell(cell: Cell) -> str:
    """A cell in words: thousands apart, (down, across) as one number where both are equal."""
    if cell is None:
        return "-"
    if isinstance(cell, tuple):
        return "x".join(map(_format_cell, cell[:1] if len(set(cell)) == 1 else cell))
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 and cell % 1 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _split_cell(name: str, cell: Cell, column: npt.NDArray[Any] | None) -> Iterator[tuple[str, Any]]:
    """A cell as plain values, each under its name; column: all cells of its column, where these are numbers."""
    if column is not None and column.ndim == 2:
        parts = cell if isinstance(cell, tuple) else (None,) * column.shape[1]
        yield from ((f"{name} {i}", part) for i, part in enumerate(parts))
    else:
        yield name, "x".join(map(str, cell)) if isinstance(cell, tuple) else cell


def _align(column: tuple[str, ...], to_left: bool) -> list[str]:
    width = max(map(len, column))
    return [text.ljust(width) if to_left else text.rjust(width) for text in column]


def _to_array(cells: list[Cell]) -> npt.NDArray[np.float64] | None:
    """A column as an array, or None for texts and for tuples of different lengths."""
    lengths = {len(cell) if isinstance(cell, tuple) else 0 for cell in cells if cell is not None}
    if len(lengths) != 1 or any(isinstance(cell, str) for cell in cells):
        return None
    k = lengths.pop()
    gap = (np.nan,) * k if k else np.nan
    return np.array([gap if cell is None else cell for cell in cells], np.float64)
