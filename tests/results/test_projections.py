"""Projections: a pattern where it lies, and beside it what the photograph shows there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from legibility import find_faults
from support import ORIGIN
from support_maps import projections

import vizcnn
from vizcnn.errors import ShapeError
from vizcnn.geometry import Box
from vizcnn.results import Projections, Row, Scene, current_style


def test_a_pattern_lies_in_its_box_beside_the_same_part_of_the_photograph() -> None:
    box = Box(20, 40, 60, 100)
    photo, _, pattern, part = projections((100, 200), [box]).figure().axes
    (image,) = pattern.images
    assert [*image.get_extent()] == [39.5, 99.5, 59.5, 19.5]
    assert image.get_array()[0, 0, 0] == 1  # type: ignore[index]
    assert image.get_array()[2, 2, 0] == 0.5  # type: ignore[index]
    assert pattern.get_facecolor()[:3] == (0.5, 0.5, 0.5)  # what is around it is zero
    assert (pattern.get_xlim(), pattern.get_ylim()) == (part.get_xlim(), part.get_ylim())
    assert pattern.get_xlim() == (40 - 15 - 0.5, 100 - 0.5)  # as far as the network sees
    np.testing.assert_array_equal(part.images[0].get_array(), photo.images[0].get_array())


@pytest.mark.parametrize("size", [(100, 200), (200, 100), (16, 16)])
def test_one_pattern_is_as_large_as_its_photograph(size: tuple[int, int]) -> None:
    side = min(size)
    figure = projections(size, [Box(0, 0, side, side)]).figure()
    photo, _, pattern, part = (ax.get_position() for ax in figure.axes)
    assert pattern.width * pattern.height >= 0.99 * photo.width * min(photo.height, photo.width)
    assert (pattern.width, pattern.y0) == pytest.approx((part.width, part.y0))
    assert photo.y1 == pytest.approx(pattern.y1)


def test_many_patterns_stand_two_by_two_with_their_tops_in_line() -> None:
    figure = projections((100, 100), [Box(0, 0, 50, 90), Box(20, 20, 80, 40), Box(0, 0, 9, 9)]).figure()
    _, _, one, _, _, two, _, _, three, _ = (ax.get_position() for ax in figure.axes)
    assert one.y1 == pytest.approx(two.y1)
    assert one.x0 == pytest.approx(three.x0)
    assert three.y1 < min(one.y0, two.y0)


@pytest.mark.parametrize("style", ["screen", "print"])
@pytest.mark.parametrize("size", [(30, 300), (300, 30), (16, 16)])
@pytest.mark.parametrize("count", [1, 3])
def test_all_texts_can_be_read(style: str, size: tuple[int, int], count: int) -> None:
    side = min(size)
    boxes = [Box(0, 0, side, side), Box(0, 0, side / 8, side / 9), Box(side / 3, side / 3, side / 2, side)][:count]
    with vizcnn.use_style(style):
        found = projections(size, boxes, "ein sehr langer Name mit vielen Wörtern φωτογραφία.png", images=2)
        for page in range(1, found.pages + 1):
            figure = found.figure(page)
            assert find_faults(figure) == []
            assert figure.get_figwidth() <= current_style().width
            assert figure.get_figheight() <= current_style().height


def test_they_open_again(tmp_path: Path) -> None:
    found = projections((40, 30), [Box(1, 2, 9, 8)])
    opened = vizcnn.load_result(found.save(tmp_path / "a.npz"))
    assert isinstance(opened, Projections)
    np.testing.assert_array_equal(opened.arrays()["target0"], found.arrays()["target0"])
    assert len(opened.figure().axes) == 4


def test_a_projection_without_a_box_is_none() -> None:
    found = projections((40, 30), [Box(1, 2, 9, 8)])
    (row,) = found.rows
    assert row.scene
    without = Projections(ORIGIN, (Row(row.panels, Scene(row.scene.photo, row.scene.seen, (None,))),), ())
    with pytest.raises(ShapeError, match="lies in a box of the photograph, and layer0.conv:17@3,4 has none"):
        without.figure()
