"""Table: rows of plain values under named columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.results.base import Result
from vizcnn.results.drawing import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = str | int | float | tuple[int | float, ...] | None
"""A text, a number, several numbers that belong together such as (down, across), or None where nothing applies."""

_LINE, _CHARACTER = 0.17, 0.068  # height of a row and width of a character in inches
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

    def describe(self) -> str:
        return "\n".join([*self.lines(), "", *self.findings])

    def lines(self) -> list[str]:
        """The header and the rows as text, columns aligned: numbers to the right, texts to the left."""
        texts = [list(self.columns), *([_format_cell(cell) for cell in row] for row in self.rows)]
        columns = list(zip(*texts, strict=True))
        left = [all(isinstance(row[i], str) for row in self.rows) for i in range(len(columns))]
        aligned = [_align(column, to_left) for column, to_left in zip(columns, left, strict=True)]
        return ["  ".join(cells).rstrip() for cells in zip(*aligned, strict=True)]

    def figure(self) -> Figure:
        """The table as text, every other row on grey."""
        ax = self.plot()
        bottom = ax.get_ylim()[0]
        ax.figure.supxlabel(self.provenance.line(), fontsize=6, color="0.4", y=0.5 / bottom)
        return ax.figure  # type: ignore[return-value]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Write the table, then the findings, on `ax` or on a new figure of their size. Returns the Axes.

        Letters keep their size: axes that are too small for all lines show them closer together."""
        lines = [*self.lines(), "", *self.findings]
        width, total = max(map(len, lines)) * _CHARACTER + 0.4, len(lines) + 2
        ax = _new_axes(width, total) if ax is None else ax
        ax.set_axis_off()
        ax.set(xlim=(0, width), ylim=(total, 0))
        for y in range(2, len(self.rows) + 1, 2):
            ax.axhspan(y, y + 1, color="0.94", lw=0)
        for y, line in enumerate(lines):
            weight = "bold" if y == 0 else "normal"
            ax.text(0.2, y + 0.55, line, family="monospace", fontsize=8, va="center", weight=weight)
        return ax


def _new_axes(width: float, lines: int) -> Axes:
    figure = new_figure(width, min(lines * _LINE, _TALLEST))
    figure.set_layout_engine("none")
    return figure.add_axes((0, 0, 1, 1))


def _format_cell(cell: Cell) -> str:
    """A cell in words: thousands apart, (down, across) as one number where both are equal."""
    if cell is None:
        return "-"
    if isinstance(cell, tuple):
        return "x".join(map(_format_cell, cell[:1] if len(set(cell)) == 1 else cell))
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 and cell % 1 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


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
