"""ImageGrid: many small pictures of one kind in titled panels, such as kernels or feature maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.results.base import Result
from vizcnn.results.maps import Mark
from vizcnn.results.pages import Block, count_pages, draw_blocks
from vizcnn.results.panels import Panel, Row, Scene
from vizcnn.results.records import make_even
from vizcnn.results.tiles import make_block, plot_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ImageGrid(Result):
    """Panels of small pictures, beside the photograph that they come from if there is one.

    rows: the panels; each keeps its raw numbers and states the scale that it is drawn with.
    findings: what was found, a sentence each.
    partial: after Ctrl-C; only the photographs that were done.
    """

    parts: ClassVar[tuple[type, ...]] = (Row, Panel, Scene, Mark, Box)

    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    partial: bool = field(default=False, kw_only=True)

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For each panel `KEY`, float32 (K, h, w) or (K, h, w, 3), and `KEY.channels`, int64 (K,)."""
        values: dict[str, npt.NDArray[Any]] = {panel.key: panel.values for panel in self.panels}
        return values | {f"{panel.key}.channels": np.array(panel.channels, np.int64) for panel in self.panels}

    def summary(self) -> dict[str, Any]:
        rows = [row.summary() for row in self.rows]
        return {"findings": list(self.findings), "rows": rows, "partial": self.partial}

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One for each tile, in the order of `arrays()`, where `key` is the panel's name."""
        return make_even(
            {
                "image": row.get("image"),
                "panel": panel["title"],
                "key": panel["key"],
                "channel": tile["channel"],
                "title": " ".join(tile["title"].split()),
                "lowest": tile["lowest"],
                "highest": tile["highest"],
            }
            for row in summary["rows"]
            for panel in row["panels"]
            for tile in panel["tiles"]
        )

    def describe(self) -> str:
        return "\n".join(self.findings)

    def plot(self, ax: Axes | None = None, *, panel: int = 0) -> Axes:
        """Draw one panel with its title, its scale and its colour bar, on `ax` or on a new figure. Returns the Axes."""
        return plot_panel(self.panels[panel], ax, f"{self.provenance.probe}  ")

    @property
    def pages(self) -> int:
        """How many pages the rows fill; no row is cut in two that fits on one."""
        return count_pages(self._make_blocks())

    def figure(self, page: int = 1) -> Figure:
        """Every panel with its title, its scale and, where tiles share one, a colour bar; photographs on the left.

        page: which page, of so many as `pages` says. Raises ParameterError where there is no such page."""
        return draw_blocks(self._make_blocks(), self.small_print, page)

    def _make_blocks(self) -> list[Block]:
        """What stands on the pages, in the style of now."""
        return [make_block(row) for row in self.rows]
