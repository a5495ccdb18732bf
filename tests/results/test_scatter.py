"""Scatter: points in the colours of their classes, pictures that do not cover each other, numbers that are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from support import ORIGIN as FILTERS

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import MapGrid, Scatter, Thumbnail, make_thumbnail
from vizcnn.results.scatter import COLOURS

ORIGIN = replace(FILTERS, probe="embed", details={"layer": "fc"})


def scatter(labels: Sequence[str | None], **changes: Any) -> Scatter:
    count = len(labels)
    points = np.random.default_rng(1).normal(size=(count, 2))
    pictures = tuple(
        Thumbnail(int(i), np.full((8, 8 + int(i) % 5, 3), 0.5, np.float32)) for i in MapGrid.over(points).chosen
    )
    given: dict[str, Any] = {
        "points": points,
        "axes": ("one", "two"),
        "title": "a map",
        "numbers": np.arange(count) * 2,
        "names": tuple(f"{i}.png" for i in range(count)),
        "labels": tuple(labels),
        "thumbnails": pictures,
        "found": {"layer": "fc"},
        "findings": ("found something", "and more"),
    }
    return Scatter(ORIGIN, **{**given, **changes})


def legend(figure: Figure) -> dict[str, str]:
    """Names and colours."""
    (found,) = figure.legends
    colours = [to_hex(handle.get_color()) for handle in found.legend_handles]  # type: ignore[union-attr]
    return dict(zip([text.get_text() for text in found.get_texts()], colours, strict=True))


def test_numbers_are_saved(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((4, 7), np.float32)
    made = scatter(["b", "a", None, "b"], features=features)
    with np.load(made.save(tmp_path / "map.npz")) as saved:
        np.testing.assert_array_equal(saved["points"], made.points)
        np.testing.assert_array_equal(saved["features"], features)
        assert saved["images"].tolist() == [0, 2, 4, 6]
        assert saved["classes"].tolist() == [1, 0, -1, 1]
        manifest = json.loads(str(saved["manifest"]))
    assert manifest["classes"] == ["a", "b"]
    assert manifest["names"] == ["0.png", "1.png", "2.png", "3.png"]
    assert manifest["findings"] == ["found something", "and more"]
    assert made.save(tmp_path / "map.png").stat().st_size > 0
    assert made.describe() == "found something\nand more"


def test_points_have_the_colours_of_the_legend() -> None:
    made = scatter([str(i % 11) for i in range(44)])
    figure = made.figure()
    names = legend(figure)
    assert set(names) == set(map(str, range(11)))
    assert len(set(names.values())) == 11
    drawn: Any = figure.axes[0].collections[0]
    colours = {
        tuple(place): to_hex(face) for place, face in zip(drawn.get_offsets(), drawn.get_facecolors(), strict=True)
    }
    assert len(colours) == 44
    for point, label in zip(made.points, made.labels, strict=True):
        assert colours[tuple(point)] == names[str(label)]


def test_classes_beyond_the_colours_are_grey_and_said_to_be() -> None:
    many = [f"class {i:02}" for i in range(20) for _ in range(1 + i)]
    names = legend(scatter([*many, None]).figure())
    assert set(names) == {*(f"class {i:02}" for i in range(8, 20)), "8 other classes, unknown"}
    grey = names["8 other classes, unknown"]
    assert grey not in COLOURS
    assert sum(colour == grey for colour in names.values()) == 1


def test_without_classes_there_is_no_legend() -> None:
    assert not scatter([None] * 5).figure().legends


def test_colours_are_distinct() -> None:
    assert len(set(COLOURS)) == len(COLOURS) == 12


@pytest.mark.parametrize("stretch", [1.0, 30.0])
def test_pictures_do_not_cover_each_other_and_lie_near_their_points(stretch: float) -> None:
    made = scatter(["a", "b"] * 100)
    points = made.points * [stretch, 1]
    grid = MapGrid.over(points)
    shown = tuple(Thumbnail(int(i), np.zeros((6, 4 + int(i) % 5, 3), np.float32)) for i in grid.chosen)
    right = scatter(made.labels, points=points, thumbnails=shown).figure().axes[1]
    boxes = np.array([image.get_extent() for image in right.images])  # (M, 4): left, right, low, high
    assert len(boxes) == len(shown) > 10
    for i, (left, edge, low, high) in enumerate(boxes):
        others = np.delete(boxes, i, 0)
        apart = (others[:, 1] <= left) | (others[:, 0] >= edge) | (others[:, 3] <= low) | (others[:, 2] >= high)
        assert apart.all()
        assert np.abs(points[shown[i].index] - [(left + edge) / 2, (low + high) / 2]).max() <= grid.cell / 2 + 1e-9


def test_each_cell_that_holds_points_shows_the_one_nearest_to_its_centre() -> None:
    points = np.array([[0.0, 0.0], [1.3, 1.2], [1.6, 1.4], [4.0, 4.0]])
    grid = MapGrid.over(points, across=4)
    assert sorted(grid.chosen.tolist()) == [0, 2, 3]
    assert grid.cell == 1


@pytest.mark.parametrize("points", [[[3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
def test_points_in_one_place_can_be_drawn(points: Any) -> None:
    made = scatter([None] * len(points), points=np.array(points), thumbnails=())
    assert MapGrid.over(made.points).chosen.tolist() == [0]
    assert len(made.figure().axes) == 2


def test_a_thumbnail_is_small_and_shows_what_was_seen() -> None:
    pixels = np.zeros((300, 400, 3), np.float32)
    pixels[:, 100:] = 1
    made = make_thumbnail(3, Photo(pixels), Box(0, 100, 300, 400))
    assert made.pixels.shape == (96, 96, 3)
    assert made.pixels.min() == 1
