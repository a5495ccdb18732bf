"""Curve: numbers along a scale, such as a score while more and more of an image is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ShapeError
from vizcnn.results.base import Result
from vizcnn.results.drawing import new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's
_DASHES = ("-", "--", ":", "-.")  # the next ones when all colours are used
_WIDTH, _HEIGHT, _SMALL_PRINT = 6.0, 4.0, 0.047  # inches; the last per letter of the line below
_FEW = 25  # points that are marked one by one


@dataclass(frozen=True)
class Curve(Result):
    """Named lines over one scale, with the area under each.

    x: float64 (P,), at least two points, increasing.
    lines: float64 (L, P), a value per point; NaN where nothing was computed.
    names: of the lines.
    x_name, x_unit, y_name, y_unit: what the two directions are, and in what units; "" for a number without one.
    title: what the curve shows.
    findings: what was found, a sentence each.
    partial: the computation was interrupted.

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
        """x: float64 (P,). lines: float64 (L, P). areas: float64 (L,)."""
        return {"x": self.x, "lines": self.lines, "areas": self.areas}

    def summary(self) -> dict[str, Any]:
        lines = [
            {"name": name, "area": _to_json(area), "first": _to_json(y[0]), "last": _to_json(y[-1])}
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

    def describe(self) -> str:
        start, end = (_format(x, self.x_unit) for x in self.x[[0, -1]])
        said = [
            f"{name}: {self.y_name} {_format(y[0], self.y_unit)} to {_format(y[-1], self.y_unit)} while {self.x_name} "
            f"goes from {start} to {end}; area {area:.3g}"
            for name, y, area in zip(self.names, self.lines, self.areas, strict=True)
        ]
        return "\n".join([*self.findings, *said, *["Interrupted: the curve is partial."] * self.partial])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the lines, each with its area tinted and named in the legend, on `ax` or on a new figure. Returns the
        Axes. Zero is always in sight, since areas begin there."""
        from matplotlib.lines import Line2D

        ax = new_figure(_WIDTH, _HEIGHT).add_subplot() if ax is None else ax
        handles = []
        for i, y in enumerate(self.lines):
            style: dict[str, Any] = {
                "color": _COLOURS[i % len(_COLOURS)],
                "ls": _DASHES[i // len(_COLOURS) % len(_DASHES)],
            }
            ax.fill_between(self.x, y, color=style["color"], alpha=0.3 / (1 + len(self.lines)), lw=0)
            marker = "o" if len(self.x) <= _FEW or np.isnan(y).any() else None  # between gaps a point has no line
            ax.plot(self.x, y, lw=1.8, marker=marker, markersize=3, zorder=3, clip_on=False, **style)
            handles.append(Line2D([], [], lw=1.8, **style))
        ax.axhline(0, color="0.4", lw=0.8, zorder=1)
        ax.grid(axis="y", color="0.9", lw=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(float(self.x[0]), float(self.x[-1]))
        ax.set_xlabel(_label(self.x_name, self.x_unit))
        ax.set_ylabel(_label(self.y_name, self.y_unit))
        ax.set_title(shorten(self.title, 90), fontsize=10)
        legend = ax.legend(handles, [""] * len(handles), fontsize=8, frameon=False)
        for text, name, area in zip(legend.get_texts(), self.names, self.areas, strict=True):
            text.set_text(f"{shorten(name)}   area {area:.3g}")  # late: matplotlib leaves out names that begin with _
        return ax

    def figure(self) -> Figure:
        """The curve, with the provenance below."""
        line = self.provenance.line() + ("  PARTIAL" if self.partial else "")
        figure = new_figure(max(_WIDTH, _SMALL_PRINT * len(line)), _HEIGHT)
        self.plot(figure.add_subplot())
        figure.supxlabel(line, fontsize=6, color="0.4")
        return figure


def _to_json(value: float) -> float | None:
    """The value, or None for NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def _format(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip()


def _label(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name
