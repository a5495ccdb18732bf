"""UnitSums: units number by number, as one would compute them by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.results.arithmetic_picture import draw_sliding, draw_unit
from vizcnn.results.base import Result
from vizcnn.results.drawing import check_page
from vizcnn.results.maps import Mark
from vizcnn.results.panels import Scene, format_number
from vizcnn.results.records import make_even
from vizcnn.results.sums import Addend, UnitSum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class UnitSums(Result):
    """Units, each as the sum of products that it is.

    rows: for each image a unit for each target.

    `arrays()` has for unit `u` and path `p` the numbers `u.p.patch`, `u.p.weights` and `u.p.sums`. `records()` has a
    row for each channel that is read. `figure(page)` draws one unit; units on maps of a few px have a page more, on
    which the kernel slides over all places.
    """

    parts: ClassVar[tuple[type, ...]] = (UnitSum, Addend, Scene, Mark, Box)

    rows: tuple[tuple[UnitSum, ...], ...]
    partial: bool = False

    @property
    def units(self) -> tuple[UnitSum, ...]:
        """All of them, the images one after the other."""
        return tuple(unit for row in self.rows for unit in row)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Float64: the patch that each path reads, its weights, (I, rows, columns), and each sum of products, (I,)."""
        found: dict[str, npt.NDArray[Any]] = {}
        for u, unit in enumerate(self.units):
            for p, addend in enumerate(unit.addends):
                numbers = {"patch": addend.patch, "weights": addend.weights, "sums": addend.sums}
                found |= {f"{u}.{p}.{name}": each for name, each in numbers.items() if each is not None}
        return found

    def summary(self) -> dict[str, Any]:
        return {"units": [unit.summary() for unit in self.units]}

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        return make_even(
            {
                "image": unit["image"],
                "unit": unit["unit"],
                "path": addend["name"],
                "reads": channel["reads"],
                "sum": channel["sum"],
                "adds": channel["sum"] * addend["scale"],
            }
            for unit in summary["units"]
            for addend in unit["addends"]
            for channel in addend["channels"]
        )

    def describe(self) -> str:
        return "\n".join(line for unit in self.units for line in _describe_unit(unit))

    @property
    def pages(self) -> int:
        return len(self._list_pages())

    def figure(self, page: int = 1) -> Figure:
        """One unit: patches times kernels are products, their sums, and what is added behind them; or, on maps of a few
        px, the kernel at all places. Raises ParameterError where there is no such page."""
        pages = self._list_pages()
        check_page(page, len(pages))
        unit, slides = pages[page - 1]
        return (draw_sliding if slides else draw_unit)(unit, self.small_print, page, len(pages))

    def _list_pages(self) -> list[tuple[UnitSum, bool]]:
        return [(unit, slides) for unit in self.units for slides in (False, True) if not slides or unit.slides]


def _describe_unit(unit: UnitSum) -> Iterator[str]:
    """How a unit comes about, a line for each of its addends."""
    yield f"{unit.image}: {unit.title} is {format_number(unit.network)}"
    for line in unit.list_lines():
        yield f"  {line.sign:1} {line.number:>8}  {line.words}"
