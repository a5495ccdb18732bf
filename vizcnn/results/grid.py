"""ImageGrid: many small pictures of one kind in titled panels, such as kernels or feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.results.base import Result
from vizcnn.results.heatmap import Mark
from vizcnn.results.panels import Panel, Row, Scene
from vizcnn.results.tiles import draw_panel, draw_rows, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ImageGrid(Result):
    """Panels of small pictures, beside the photograph that they come from if there is one.

    rows: the panels; each keeps its raw numbers and states the scale that it is drawn with.
    findings: what was found, a sentence each.
    """

    parts: ClassVar[tuple[type, ...]] = (Row, Panel, Scene, Mark, Box)

    rows: tuple[Row, ...]
    findings: tuple[str, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For each panel `KEY`, float32 (K, h, w) or (K, h, w, 3), and `KEY.channels`, int64 (K,)."""
        values: dict[str, npt.NDArray[Any]] = {panel.key: panel.values for panel in self.panels}
        return values | {f"{panel.key}.channels": np.array(panel.channels, np.int64) for panel in self.panels}

    def summary(self) -> dict[str, Any]:
        return {"findings": list(self.findings), "rows": [row.summary() for row in self.rows]}

    def describe(self) -> str:
        return "\n".join(self.findings)

    def plot(self, ax: Axes | None = None, *, panel: int = 0) -> Axes:
        """Draw one panel with its title, its scale and its colour bar, on `ax` or on a new figure. Returns the Axes."""
        return draw_panel(new_axes(self.panels[panel]) if ax is None else ax, self.panels[panel])

    def figure(self) -> Figure:
        """Every panel with its title, its scale and, where tiles share one, a colour bar; photographs on the left."""
        return draw_rows(self.rows, self.provenance.line())
