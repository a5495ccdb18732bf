"""LayerTable: what a network's layers are and cost, with a diagram of the shapes through the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vizcnn.results.drawing import check_page
from vizcnn.results.page import NARROWEST, Page
from vizcnn.results.shapes import ShapeDiagram, Stage
from vizcnn.results.style import current_style
from vizcnn.results.table import Cell, Printed, Table, TableLayout

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SMALLEST = 0.8  # of the style's letters


@dataclass(frozen=True)
class LayerTable(Table):
    """A row for each layer, in order of execution.

    total: the sums, a cell for each column, "" where none is meant. usual: by column, what is not worth printing where
        all layers have it. Text and picture leave such columns out; arrays, records and files have them.
    stages: the shapes through the network, for the diagram above the table. details: columns that a picture leaves out,
        one after the other, where its letters would become too small.
    """

    parts: ClassVar[tuple[type, ...]] = (Stage,)

    total: tuple[Cell, ...] = ()
    usual: tuple[tuple[str, Cell], ...] = ()
    stages: tuple[Stage, ...] = ()
    details: tuple[str, ...] = ()

    @property
    def printed(self) -> Printed:
        return self._print(0)

    def _print(self, without: int) -> Printed:
        """What is shown, without so many of the details."""
        usual, left_out = dict(self.usual), self.details[:without]
        kept = [
            i
            for i, name in enumerate(self.columns)
            if name not in left_out
            and (name not in usual or any(row[i] not in (None, usual[name]) for row in self.rows))
        ]

        def pick(cells: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(cells[i] for i in kept)

        return Printed(pick(self.columns), tuple(map(pick, self.rows)), pick(self.total) if self.total else ())

    def summary(self) -> dict[str, Any]:
        total: Mapping[str, Cell] = dict(zip(self.columns, self.total, strict=True)) if self.total else {}
        return {**super().summary(), "total": {name: cell for name, cell in total.items() if cell not in ("", None)}}

    @property
    def pages(self) -> int:
        return len(self._lay_out()[1].pages)

    def figure(self, page: int = 1) -> Figure:
        """A page of the table; on the first, the diagram stands above it."""
        diagram, layout = self._lay_out()
        check_page(page, len(layout.pages))
        lines, above = layout.pages[page - 1], diagram.height if page == 1 else 0.0
        width = max(layout.width, diagram.width if above else 0.0, min(NARROWEST, current_style().width))
        height = layout.measure(lines)
        made = Page(width, above + height, self.small_print, page, len(layout.pages))
        if above:
            diagram.draw(made)
        layout.draw(made.add_axes(0, above, layout.width, height), lines)
        return made.figure

    def _lay_out(self) -> tuple[ShapeDiagram, TableLayout]:
        diagram = ShapeDiagram(self.stages)
        for without in range(len(self.details) + 1):
            layout = TableLayout(self, above=diagram.height, printed=self._print(without))
            if layout.points >= _SMALLEST * current_style().text:
                break
        return diagram, layout
