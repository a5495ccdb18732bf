"""Table: rows of plain values under named columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.results.base import Result
from vizcnn.results.drawing import check_page, draw_caption, fit_text, measure_text, new_figure, wrap_text
from vizcnn.results.records import make_even
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = str | int | float | tuple[int | float, ...] | None
"""A text, a number, several numbers that belong together such as (down, across), or None where nothing applies."""

_MARGIN, _BETWEEN, _CAPTION = 0.15, 0.22, 0.35  # inches: around the table, between columns, for the line below
_SHORTEST, _FINDING = 0.9, 5.5  # inches: that a column of texts may be cut to, and for findings below a narrow table
_WIDEST = 7.0  # inches, for a table that is too wide for one column of a paper
_TALLEST = 400.0  # inches; more rows are drawn closer together


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

    def lines(self) -> list[str]:
        """The header and the rows as text, columns aligned: numbers to the right, texts to the left."""
        texts = [list(self.columns), *([_format_cell(cell) for cell in row] for row in self.rows)]
        columns = list(zip(*texts, strict=True))
        left = [all(isinstance(row[i], str) for row in self.rows) for i in range(len(columns))]
        aligned = [_align(column, to_left) for column, to_left in zip(columns, left, strict=True)]
        return ["  ".join(cells).rstrip() for cells in zip(*aligned, strict=True)]

    @property
    def pages(self) -> int:
        return -(-max(1, len(self.rows)) // _count_rows())

    def figure(self, page: int = 1) -> Figure:
        """A page of the table, every other row on grey; the findings stand on the last page."""
        check_page(page, self.pages)
        first, last = (page - 1) * _count_rows(), page * _count_rows()
        layout = TableLayout(self, slice(first, last), self.findings if page == self.pages else ())
        figure = new_figure(layout.width, layout.height + _CAPTION)
        figure.set_layout_engine("none")
        height = figure.get_figheight()
        layout.draw(figure.add_axes((0, 1 - layout.height / height, 1, layout.height / height)))
        draw_caption(figure, self.provenance.line(), page, self.pages)
        return figure

    def plot(self, ax: Axes | None = None) -> Axes:
        """Write the whole table, then the findings, on `ax` or on a new figure of their size. Returns the Axes.

        Letters keep their size: axes that are too small for all lines show them closer together."""
        layout = TableLayout(self, slice(None), self.findings)
        if ax is None:
            figure = new_figure(layout.width, min(layout.height, _TALLEST))
            figure.set_layout_engine("none")
            ax = figure.add_axes((0, 0, 1, 1))
        return layout.draw(ax)


def _measure_line() -> float:
    """The height of a row in inches."""
    return 1.55 * current_style().text / 72


def _count_rows() -> int:
    """How many rows a page holds, beside the names of the columns, some findings and the line below."""
    style = current_style()
    return max(1, int((style.height - 1.2) / _measure_line()))


class TableLayout:
    """Where everything of some rows of a table lies, in inches from the upper left corner.

    Names of columns take several lines rather than widen a column. Where the columns are too wide for the style, texts
    lose their middles; where that is not enough the table takes both columns of a paper, and at last smaller letters.
    """

    def __init__(self, table: Table, rows: slice, findings: Sequence[str]) -> None:
        style = current_style()
        every = [[_format_cell(cell) for cell in row] for row in table.rows]
        self.is_text = [all(isinstance(row[i], str) for row in table.rows) for i in range(len(table.columns))]
        self.points, room = style.text, style.width - 2 * _MARGIN
        self.widths = [
            max(self._measure([max(name.split(), key=len, default="")]), self._measure([row[i] for row in every]))
            for i, name in enumerate(table.columns)
        ]
        self._cut_texts(every, room)
        room = max(room, min(_WIDEST - 2 * _MARGIN, self._add_up()))
        if self._add_up() > room:
            smaller = (room - self._add_up() + sum(self.widths)) / sum(self.widths)
            self.points *= smaller
            self.widths = [width * smaller for width in self.widths]
        self.cells = every[rows]
        widest = max(self._add_up(), min(room, _FINDING) if findings else 0.0)
        self.names = [
            wrap_text(name, width, self.points) for name, width in zip(table.columns, self.widths, strict=True)
        ]
        self.findings = [line for each in findings for line in wrap_text(each, widest, self.points)]
        self.line = _measure_line() * self.points / style.text
        self.top = self.line * max(map(len, self.names)) + _MARGIN
        self.width = widest + 2 * _MARGIN
        self.height = self.top + self.line * (len(self.cells) + len(self.findings) + bool(findings)) + _MARGIN

    def _measure(self, texts: Sequence[str]) -> float:
        return max((measure_text(text, self.points) for text in texts), default=0.0)

    def _add_up(self) -> float:
        return sum(self.widths) + _BETWEEN * (len(self.widths) - 1)

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

    def draw(self, ax: Axes) -> Axes:
        """Write it on axes that are used for nothing else."""
        style = current_style()
        ax.set_axis_off()
        ax.set(xlim=(0, self.width), ylim=(self.height, 0))
        for y in range(1, len(self.cells), 2):
            top = self.top + y * self.line
            ax.axhspan(top, top + self.line, color=style.faint, alpha=0.45, lw=0)
        ax.plot([_MARGIN, self.width - _MARGIN], [self.top] * 2, color=style.muted, lw=0.6)
        x = _MARGIN
        for i, width in enumerate(self.widths):
            side, place = ("left", x) if self.is_text[i] else ("right", x + width)
            look: dict[str, Any] = {"fontsize": self.points, "ha": side}
            ax.text(place, self.top - 0.05, "\n".join(self.names[i]), va="bottom", color=style.muted, **look)
            for y, row in enumerate(self.cells):
                ax.text(place, self.top + (y + 0.5) * self.line, row[i], va="center", **look)
            x += width + _BETWEEN
        for y, finding in enumerate(self.findings, start=len(self.cells) + 1):
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
