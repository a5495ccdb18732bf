"""Tables, curves, maps of images and photographs made over, with more or longer content than usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from legibility import find_faults
from matplotlib.figure import Figure
from support import ORIGIN

import vizcnn
from vizcnn.inputs.photo import Photo
from vizcnn.results import MapGrid, Pictures, Result, Scatter, Scenery, Thumbnail
from vizcnn.results.style import STYLES
from vizcnn.results.texts import texts_in

LONG = "a photograph of a naval officer in front of a flag, taken at the archive in nineteen eighty-four"
BROKEN = "first\nsecond \x00 third"


def table(rows: int, findings: Sequence[str] = (), text: str = "conv") -> vizcnn.Table:
    cells = tuple((f"{text} {i}", i) for i in range(rows))
    return vizcnn.Table(ORIGIN, ("layer", "units"), cells, tuple(findings))


def curve(count: int, name: str = LONG, title: str = "") -> vizcnn.Curve:
    lines = np.random.default_rng(0).random((count, 9))
    names = tuple(f"{name} {i}" for i in range(count))
    return vizcnn.Curve(ORIGIN, np.linspace(0, 1, 9), lines, names, "share", "probability", title=title)


def scatter(classes: int, name: str = LONG) -> Scatter:
    points = np.random.default_rng(0).normal(size=(40, 2))
    pixels = np.full((6, 9, 3), 0.5, np.float32)
    pictures = tuple(Thumbnail(int(i), pixels) for i in MapGrid.over(points).chosen)
    names, labels = tuple(map(str, range(40))), tuple(f"{name} {i % classes}" for i in range(40))
    return Scatter(ORIGIN, points, (LONG, LONG), LONG, np.arange(40), names, labels, pictures, {}, ())


def pictures(height: int, width: int, count: int = 1, name: str = LONG) -> Pictures:
    pixels = np.full((height, width, 3), 0.5, np.float32)
    none = np.empty((0, height, width, 3), np.uint8)
    return Pictures(ORIGIN, tuple(Scenery(pixels, (("", Photo(pixels, name)),), {}, none) for _ in range(count)))


RESULTS: dict[str, Result] = {
    "a table without rows": table(0),
    "a narrow table": table(2),
    "a table of several pages": table(200, ["one finding"]),
    "a table of findings": table(1, [LONG] * 60),
    "a table with broken lines": table(3, [BROKEN], BROKEN),
    "one line": curve(1),
    "forty lines": curve(40, title=f"{LONG} {LONG}"),
    "broken names of lines": curve(2, BROKEN, BROKEN),
    "one class": scatter(1),
    "fourteen classes": scatter(14),
    "one px": pictures(1, 1),
    "a panorama": pictures(20, 400),
    "a tower": pictures(400, 20),
    "many pictures": pictures(60, 80, 12),
    "a broken name": pictures(50, 60, 1, BROKEN),
}


@pytest.mark.parametrize("style", ["screen", "print", "print-wide"])
@pytest.mark.parametrize("name", RESULTS)
def test_all_texts_can_be_read_on_pages_of_the_style(name: str, style: str) -> None:
    result: Any = RESULTS[name]
    with vizcnn.use_style(style):
        for page in range(1, result.pages + 1):
            figure = result.figure() if page == 1 else result.figure(page=page)
            assert find_faults(figure) == []
            assert figure.get_figwidth() <= STYLES[style].width + 0.001
            assert figure.get_figheight() <= STYLES[style].height + 0.001


def test_every_row_and_every_finding_stands_on_one_of_the_pages() -> None:
    made = table(200, [f"finding {i}" for i in range(150)])
    assert made.pages > 3
    figures = [made.figure(page=page) for page in range(1, made.pages + 1)]
    said = [line for figure in figures for text in texts_in(figure) for line in text.get_text().split("\n")]
    wanted = [*(f"conv {i}" for i in range(200)), *(f"finding {i}" for i in range(150))]
    assert [text for text in said if text.startswith(("conv", "finding"))] == wanted


def test_a_table_of_very_many_columns_stays_within_the_page() -> None:
    columns = tuple(f"column number {i}" for i in range(30))
    figure = vizcnn.Table(ORIGIN, columns, (tuple(range(30)),), ()).figure()
    assert [fault for fault in find_faults(figure) if "is" not in fault.split("'")[-1]] == []


def test_lines_without_room_in_the_legend_are_counted() -> None:
    ax = Figure((4, 2)).add_subplot()
    curve(30, "line").plot(ax)
    legend = ax.get_legend()
    assert legend is not None
    *named, last = [text.get_text() for text in legend.get_texts()]
    assert last == f"{30 - len(named)} other lines"
    assert legend.get_window_extent().height <= ax.get_window_extent().height


@pytest.mark.parametrize("style", STYLES)
def test_a_long_line_of_provenance_is_cut_and_not_the_picture(style: str) -> None:
    layers = tuple(f"features.denseblock{i}.layer" for i in range(80))
    long = replace(ORIGIN, details={"layers": layers})
    with vizcnn.use_style(style):
        for result in (table(2), curve(2), pictures(60, 80)):
            assert find_faults(replace(result, provenance=long).figure()) == []
