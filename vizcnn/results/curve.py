"""Curve: numbers along a scale, such as a score while more and more of an image is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ShapeError
from vizcnn.results.base import Result
from vizcnn.results.drawing import draw_caption, fit_text, measure_axes, measure_text, new_figure, wrap_text
from vizcnn.results.records import make_even
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Floats = npt.NDArray[np.float64]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, and the ink
_DASHES = ("-", "--", ":", "-.")  # the next ones when all colours are used
_WIDTH, _SHAPE = 6.0, 2 / 3  # inches, and the share of them that is the height
_KEY, _AXIS = 0.6, 0.5  # inches: of a legend beside its names, of the axis below the lines
_INSIDE = 8  # lines whose legend stands among them
_FEW = 25  # points that are marked one by one


@dataclass(frozen=True)
class Curve(Result):
    """Named lines over one scale, with the area under each where that means something.

    x: float64 (P,), at least two points, increasing.
    lines: float64 (L, P), a value per point; NaN where nothing was computed.
    names: of the lines.
    x_name, x_unit, y_name, y_unit: what the two directions are, and in what units; "" for a number without one.
    title: what the curve shows.
    findings: what was found, a sentence each.
    partial: the computation was interrupted.
    has_areas: whether the areas say something, so that they are tinted and told, and zero is in sight.

    Raises ShapeError where these do not fit each other.
    """

    whole_in_json: ClassVar[bool] = True

    x: Floats
    lines: Floats
    names: tuple[str, ...]
    x_name: str
    y_name: str
    x_unit: str = ""
    y_unit: str = ""
    title: str = ""
    findings: tuple[str, ...] = ()
    partial: bool = False
    has_areas: bool = True

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or len(self.x) < 2 or not (np.isfinite(self.x).all() and (np.diff(self.x) > 0).all()):
            raise ShapeError(f"x is (P,) numbers that increase, at least two, got {self.x.shape}: {self.x}. Sort them")
        if self.lines.shape != (len(self.names), len(self.x)) or not self.names:
            raise ShapeError(
                f"lines are (L, P), a row for each of L names and a value for each of P points, got {self.lines.shape} "
                f"for {len(self.names)} names and {len(self.x)} points"
            )

    @property
    def areas(self) -> Floats:
        """The area between each line and zero, float64 (L,), in units of x times units of y.

        By the trapezoidal rule: the sum of (x' - x) (y + y') / 2 over neighbouring points. What lies below zero counts
        as negative; a line with a gap has no area (NaN)."""
        areas: Floats = (np.diff(self.x) * (self.lines[:, 1:] + self.lines[:, :-1]) / 2).sum(1)
        return areas

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """x: float64 (P,). lines: float64 (L, P). areas: float64 (L,), where they say something."""
        return {"x": self.x, "lines": self.lines} | ({"areas": self.areas} if self.has_areas else {})

    def summary(self) -> dict[str, Any]:
        lines = [
            {"name": name, "first": _to_json(y[0]), "last": _to_json(y[-1])}
            | ({"area": _to_json(area)} if self.has_areas else {})
            for name, y, area in zip(self.names, self.lines, self.areas, strict=True)
        ]
        return {
            "title": self.title,
            "x": {"name": self.x_name, "unit": self.x_unit, "first": float(self.x[0]), "last": float(self.x[-1])},
            "y": {"name": self.y_name, "unit": self.y_unit},
            "lines": lines,
            "findings": list(self.findings),
            "partial": self.partial,
        }

    def records(self) -> list[dict[str, Any]]:
        """One for each point of each line."""
        lines = zip(self.names, self.lines, strict=True)
        return make_even({"line": name, "x": x, "y": y} for name, ys in lines for x, y in zip(self.x, ys, strict=True))

    def describe(self) -> str:
        start, end = (_format(x, self.x_unit) for x in self.x[[0, -1]])
        said = [
            f"{name}: {self.y_name} {_format(y[0], self.y_unit)} to {_format(y[-1], self.y_unit)} while {self.x_name} "
            f"goes from {start} to {end}" + f"; area {area:.3g}" * self.has_areas
            for name, y, area in zip(self.names, self.lines, self.areas, strict=True)
        ]
        return "\n".join([*self.findings, *said, *["Interrupted: the curve is partial."] * self.partial])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the lines, named in the legend, on `ax` or on a new figure. Returns the Axes. Areas that say something
        are tinted and told in the legend, and zero, where they begin, is then in sight."""
        return self._draw(self._make_figure().add_subplot() if ax is None else ax, below=ax is None)

    def _draw(self, ax: Axes, *, below: bool) -> Axes:
        """below: whether a long legend stands below the axes."""
        from matplotlib.lines import Line2D

        style = current_style()
        colours, handles = (*_COLOURS, style.ink), []
        for i, y in enumerate(self.lines):
            look: dict[str, Any] = {"color": colours[i % len(colours)], "ls": _DASHES[i // len(colours) % len(_DASHES)]}
            if self.has_areas:
                ax.fill_between(self.x, y, color=look["color"], alpha=0.3 / (1 + len(self.lines)), lw=0)
            marker = "o" if len(self.x) <= _FEW or np.isnan(y).any() else None  # between gaps a point has no line
            ax.plot(self.x, y, lw=1.8, marker=marker, markersize=3, zorder=3, clip_on=False, **look)
            handles.append(Line2D([], [], lw=1.8, **look))
        if self.has_areas:
            ax.axhline(0, color=style.muted, lw=0.8, zorder=1)
        ax.grid(axis="y", color=style.faint, lw=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(float(self.x[0]), float(self.x[-1]))
        width, height = measure_axes(ax)
        ax.set_xlabel(fit_text(_label(self.x_name, self.x_unit), width, style.text), fontsize=style.text)
        ax.set_ylabel(fit_text(_label(self.y_name, self.y_unit), height, style.text), fontsize=style.text)
        ax.set_title("\n".join(wrap_text(self.title, width, style.title)), fontsize=style.title)
        self._draw_legend(ax, handles, below=below and len(handles) > _INSIDE)
        return ax

    def _draw_legend(self, ax: Axes, handles: list[Line2D], *, below: bool) -> None:
        """Name as many lines as there is room for, and say how many others there are."""
        from matplotlib.lines import Line2D
        from matplotlib.transforms import ScaledTranslation

        size, (width, height) = current_style().small, measure_axes(ax)
        most = self._count_below() if below else max(2, int(height / _measure_key()))
        shown = handles if len(handles) <= most else [*handles[: most - 1], Line2D([], [], lw=0)]
        where: dict[str, Any] = {}
        if below:
            down = ScaledTranslation(0, -_AXIS, ax.figure.dpi_scale_trans)
            where = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": ax.transAxes + down}
        legend = ax.legend(shown, [""] * len(shown), fontsize=size, edgecolor="none", **where)
        for i, text in enumerate(legend.get_texts()):
            said = f"   area {self.areas[i]:.3g}" * self.has_areas
            name = fit_text(self.names[i], width - _KEY - measure_text(said, size), size) + said
            others = len(handles) - i if shown[i] is not handles[i] else 0
            text.set_text(f"{others} other lines" if others else name)  # late: matplotlib leaves out names with a _

    def _count_below(self) -> int:
        """How many lines of a legend have room below the axes on a page."""
        style = current_style()
        return int((style.height - _SHAPE * min(_WIDTH, style.width) - 2 * _AXIS) / _measure_key())

    def figure(self) -> Figure:
        """The curve, with the provenance below."""
        figure = self._make_figure()
        self._draw(figure.add_subplot(), below=True)
        draw_caption(figure, self.small_print)
        return figure

    def _make_figure(self) -> Figure:
        """A figure with room for a long legend below the axes, and for the lines of the title."""
        style = current_style()
        width = min(_WIDTH, style.width)
        below = min(len(self.names), self._count_below()) * _measure_key() if len(self.names) > _INSIDE else 0.0
        return new_figure(width, _SHAPE * width + 0.2 + below)


def _measure_key() -> float:
    """The height of a line of the legend in inches."""
    return 1.75 * current_style().small / 72


def _to_json(value: float) -> float | None:
    """The value, or None for NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def _format(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip()


def _label(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name
