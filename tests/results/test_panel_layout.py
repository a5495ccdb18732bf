"""Panels at many shapes: no text is lost, lines are full, tiles are as large as the page allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from legibility import find_faults
from support import ORIGIN

import vizcnn
from vizcnn.errors import ParameterError, ShapeError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import Mark, Panel, Row, Scene, current_style
from vizcnn.results.panel_layout import choose_columns

NAMES = ["tabby", "lakeside, lakeshore", "собака", "features.denseblock4.denselayer16.conv2:17@10,12", "a b"]


def panel(count: int, height: int, width: int, *, key: str = "a", titles: str = "numbers", **more: Any) -> Panel:
    values = np.random.default_rng(0).normal(size=(count, height, width)).astype(np.float32)
    numbers = tuple(range(count))
    texts = {
        "numbers": tuple(map(str, numbers)),
        "units": tuple(f":{i}@{i},{i}\n{i * 1.2345:.3g}" for i in numbers),
        "names": tuple(f"{NAMES[i % len(NAMES)]}\n{i * 1.2345:.3g}" for i in numbers),
    }[titles]
    return Panel(key, "layer4.1.conv2: what is shown, in words", values, numbers, texts, ((-12.5, 12.5),) * count,
                 "activation", **more)  # fmt: skip


def scene(height: int, width: int, marks: int = 1, name: str = "photograph.jpg") -> Scene:
    photo = Photo(np.full((height, width, 3), 0.5, np.float32), name)
    side = min(height, width)
    box = Mark(Box(0, 0, side / 3, side / 2), "unit")
    return Scene(photo, Box(0, 0, side, side), (box,) * marks)


def grid(*rows: Row) -> vizcnn.ImageGrid:
    return vizcnn.ImageGrid(ORIGIN, rows, ("found",))


def list_tiles(figure: Any, axes: int = 0) -> list[tuple[float, float, float, float]]:
    """Left, right, bottom and top of each tile, in inches from the panel's upper left corner."""
    return [image.get_extent() for image in figure.axes[axes].images]


@pytest.mark.parametrize("style", ["screen", "print", "print-wide"])
@pytest.mark.parametrize(
    ("titles", "count", "height", "width"),
    [("names", 1, 5, 5), ("units", 6, 8, 24), ("names", 25, 3, 3), ("numbers", 96, 11, 11), ("units", 300, 4, 2)],
)
def test_all_texts_of_a_panel_can_be_read(style: str, titles: str, count: int, height: int, width: int) -> None:
    with vizcnn.use_style(style):
        figure = grid(Row((panel(count, height, width, titles=titles),))).figure()
        assert find_faults(figure) == []
        assert figure.get_figwidth() <= current_style().width
        assert figure.get_figheight() <= current_style().height


@pytest.mark.parametrize("style", ["screen", "print", "print-wide"])
@pytest.mark.parametrize("size", [(30, 200), (200, 30), (16, 16)])
def test_all_texts_beside_a_photograph_can_be_read(style: str, size: tuple[int, int]) -> None:
    names = ["x.png", "ein sehr langer Name einer Datei mit vielen Wörtern darin φωτογραφία.png"]
    rows = [
        Row(tuple(panel(12, 7, 7, key=str(k), titles="units", colours="magnitude") for k in range(3)),
            scene(*size, 3, name))
        for name in names
    ]  # fmt: skip
    with vizcnn.use_style(style):
        found = grid(*rows)
        for page in range(1, found.pages + 1):
            figure = found.figure(page)
            assert find_faults(figure) == []
            assert figure.get_figwidth() <= current_style().width
            assert figure.get_figheight() <= current_style().height


@pytest.mark.parametrize(("count", "columns"), [(25, 5), (30, 6), (48, 8), (64, 8), (96, 12), (192, 16), (256, 16)])
def test_lines_are_full_where_they_can_be(count: int, columns: int) -> None:
    assert choose_columns(count, 1.0, 1.4) == columns


@pytest.mark.parametrize("aspect", [0.5, 1.0, 3.0])
def test_the_last_line_is_nearly_full(aspect: float) -> None:
    empty = [-count % (columns := choose_columns(count, aspect, 1.4)) / columns for count in range(1, 300)]
    assert max(empty) <= 0.34


def test_fewer_tiles_are_larger() -> None:
    widths = []
    for count in (1, 4, 12, 48, 96, 300):
        left, right, _, _ = list_tiles(grid(Row((panel(count, 5, 5),))).figure())[0]
        widths.append(right - left)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.9
    assert widths[-2] > 0.55


def test_labels_give_way_where_there_is_no_room() -> None:
    few, many, more = (grid(Row((panel(count, 5, 5, titles="units"),))) for count in (6, 300, 1000))
    texts = [text.get_text() for text in few.figure().axes[0].texts]
    assert ":5@5,5\n6.17" in texts
    with vizcnn.use_style("print-wide"):
        texts = [text.get_text() for text in many.figure().axes[0].texts]
    assert "299" in texts
    assert ":299@299,299\n369" not in texts
    texts = [text.get_text() for text in more.figure().axes[0].texts]
    assert "line by line: channels 0 to 999\nactivation: -12.5 to 12.5 for all, zero is mid-grey" in texts
    assert "999" not in texts


def test_panels_of_a_comparison_stand_tile_by_tile() -> None:
    names = ("trained", "before", "difference")
    figure = grid(Row(tuple(panel(9, 5, 5, key=name) for name in names), names=names)).figure()
    assert find_faults(figure) == []
    tiles = list_tiles(figure)
    first, second, third = tiles[:9], tiles[9:18], tiles[18:]
    for one, two, three, after in zip(first, second, third, first[1:], strict=False):
        assert one[2:] == two[2:] == three[2:]  # beside each other
        inner = two[0] - one[1]
        assert 0 < inner < 0.06
        assert three[0] - two[1] == pytest.approx(inner)
        assert after[3] != one[3] or after[0] - three[1] > 4 * inner  # groups stand apart
    assert "from the left: trained, before, difference" in figure.axes[0].texts[-1].get_text()


def test_what_cannot_stand_tile_by_tile() -> None:
    one, two = panel(3, 4, 4), panel(4, 4, 4, key="b")
    with pytest.raises(ShapeError, match=r"have a name each, as many tiles and no photograph, got \('x', 'y'\) for 2"):
        Row((one, two), names=("x", "y"))
    with pytest.raises(ShapeError, match="have a name each"):
        Row((one, one), names=("x",))


def test_rows_that_fill_several_pages_are_not_cut_in_two() -> None:
    panels = tuple(panel(12, 7, 7, key=str(k), titles="units") for k in range(3))
    found = grid(*(Row(panels, scene(60, 40, 3, f"photograph {i}")) for i in range(7)))
    assert found.pages > 1
    shown = []
    for page in range(1, found.pages + 1):
        figure = found.figure(page)
        assert figure.get_figheight() <= current_style().height
        texts = [text.get_text() for text in figure.texts]
        assert any(f"page {page} of {found.pages}" in text for text in texts)
        names = [text for text in texts if text.startswith("photograph")]
        assert len(figure.axes) == len(names) * 4  # a photograph has its panels with it
        shown += names
    assert shown == [f"photograph {i}" for i in range(7)]
    with pytest.raises(ParameterError, match=f"the picture has pages 1 to {found.pages}, got 0"):
        found.figure(0)


def test_a_row_that_no_page_can_hold_goes_on_with_its_photograph() -> None:
    panels = tuple(panel(12, 7, 7, key=str(k)) for k in range(12))
    found = grid(Row(panels, scene(60, 40, 12, "mine")))
    figures = [found.figure(page) for page in range(1, found.pages + 1)]
    assert len(figures) > 1
    for figure in figures:
        assert "mine" in [text.get_text() for text in figure.texts]
        assert figure.get_figheight() <= current_style().height
    assert sum(len(figure.axes[0].figure.axes) for figure in figures) >= 12 + len(figures)


def test_a_panel_that_no_page_can_hold_goes_on_beside_its_photograph() -> None:
    found = grid(Row((panel(60, 8, 8, colours="picture", columns=3, side=2.4),), scene(60, 60, 1, "mine")))
    counts = [[len(ax.images) for ax in found.figure(page).axes] for page in range(1, found.pages + 1)]
    assert len(counts) > 1
    assert sum(tiles for _, tiles in counts) == 60
    assert all(photo == 1 for photo, _ in counts)


def test_lines_of_given_columns_go_on_on_the_next_page() -> None:
    left = panel(40, 8, 8, colours="picture", columns=1, side=1.1)
    right = panel(200, 8, 8, key="b", colours="picture", columns=5, side=1.1)
    found = grid(Row((left, right)))
    counts = [[len(ax.images) for ax in found.figure(page).axes] for page in range(1, found.pages + 1)]
    assert len(counts) > 1
    assert [sum(column) for column in zip(*counts, strict=True)] == [40, 200]
    for page in range(1, found.pages + 1):
        figure = found.figure(page)
        tops = [[tile[3] for tile in list_tiles(figure, k)] for k in (0, 1)]
        assert tops[0] == pytest.approx(tops[1][::5])  # a line of both is one line


def test_the_colour_bar_says_the_ends_of_the_scale_inside_the_figure() -> None:
    figure = grid(Row((panel(4, 5, 5),))).figure()
    (bar,) = figure.axes[0].child_axes
    assert [label.get_text() for label in bar.get_yticklabels()] == ["-12.5", "0", "12.5"]
    assert find_faults(figure) == []


def test_many_tiles_beside_others_in_one_column_of_a_paper() -> None:
    """Tiles that are narrower than the space beside their labels have none."""
    with vizcnn.use_style("print"):
        figure = grid(Row((panel(7, 4, 4), panel(7, 4, 4, key="b"), panel(40, 4, 4, key="c")))).figure()
        assert find_faults(figure) == []
