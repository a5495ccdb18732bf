"""ImageGrid: what is drawn is what the numbers say, with a scale that is stated."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import ORIGIN

import vizcnn
from vizcnn.errors import ShapeError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import Mark, Panel, Row, Scene, format_number


def panel(values: Any, limits: tuple[float, float] = (-1.0, 1.0), **changes: Any) -> Panel:
    array = np.asarray(values, np.float32)
    numbers = tuple(range(len(array)))
    made = Panel("tiles", "some tiles", array, numbers, tuple(map(str, numbers)), (limits,) * len(array), "weight")
    return replace(made, **changes)


def grid(*rows: Row) -> vizcnn.ImageGrid:
    return vizcnn.ImageGrid(ORIGIN, rows, ("found something", "and more"))


def drawn(made: Panel) -> list[Any]:
    """The images that a panel's axes hold, one per tile."""
    return list(grid(Row((made,))).figure().axes[0].images)


def test_grey_tiles_are_centred_on_zero() -> None:
    (image,) = drawn(panel([[[-2, 0], [1, 2]]], (-2, 2)))
    np.testing.assert_allclose(image.get_array(), [[0, 0.5], [0.75, 1]])
    assert image.get_interpolation() == "nearest"
    rgb = image.cmap(image.norm(image.get_array()))[:, :, :3]
    np.testing.assert_allclose(rgb[0, 1], 0.5, atol=0.01)


def test_rgb_tiles_are_mid_grey_at_zero_and_linear() -> None:
    values = np.zeros((1, 2, 2, 3))
    values[0, 0, 0] = (0.4, -0.4, 0.2)
    (image,) = drawn(panel(values, (-0.4, 0.4)))
    np.testing.assert_allclose(image.get_array()[0, 0], 0.5 + values[0, 0, 0] / (2 * 0.4))
    np.testing.assert_allclose(image.get_array()[1, 1], 0.5)


def test_magnitudes_have_a_perceptually_uniform_map() -> None:
    (image,) = drawn(panel(np.ones((1, 2, 2)), (0, 1), colours="magnitude"))
    assert image.cmap.name == "viridis"


def test_beyond_the_limits_tiles_are_clipped_and_the_numbers_are_not() -> None:
    made = panel([[[5.0, 0.0]]])
    np.testing.assert_allclose(drawn(made)[0].get_array(), [[1, 0.5]])
    assert grid(Row((made,))).arrays()["tiles"].max() == 5


def test_the_scale_is_stated() -> None:
    shared = panel(np.ones((2, 2, 2)), (-1.5, 1.5))
    each = replace(shared, limits=((-1.0, 1.0), (-2.0, 2.0)))
    maps = panel(np.ones((2, 2, 2)), (0, 3.25), colours="magnitude", meaning="activation")
    assert shared.scale() == "weight: -1.5 to 1.5 for all, zero is mid-grey"
    assert each.scale() == "weight: each its own, up to its largest magnitude, zero is mid-grey"
    assert maps.scale() == "activation: 0 to 3.25 for all"
    for made in (shared, each, maps):
        assert made.scale() in [text.get_text() for text in grid(Row((made,))).figure().axes[0].texts]


def test_numbers_have_three_digits_and_large_ones_no_exponent() -> None:
    values = (0, 0.01234, -12.345, 999.4, 999.6, -3641.2, 174123, 2e9)
    expected = ["0", "0.0123", "-12.3", "999", "1,000", "-3,641", "174,123", "2e+09"]
    assert [format_number(value) for value in values] == expected


def test_a_colour_bar_stands_where_tiles_share_a_scale() -> None:
    shared = panel(np.ones((2, 2, 2)), (-1.5, 1.5))
    (bar,) = grid(Row((shared,))).figure().axes[0].child_axes
    assert bar.get_ylim() == (-1.5, 1.5)
    assert not grid(Row((replace(shared, limits=((-1.0, 1.0), (-2.0, 2.0))),))).figure().axes[0].child_axes
    assert not grid(Row((panel(np.ones((2, 2, 2, 3))),))).figure().axes[0].child_axes


def test_tiles_do_not_overlap_and_lie_in_lines() -> None:
    images = drawn(panel(np.ones((7, 3, 5)), columns=3))
    extents = [image.get_extent() for image in images]
    tops, lefts = [e[3] for e in extents], [e[0] for e in extents]
    assert [sorted(set(tops)).index(t) for t in tops] == [0, 0, 0, 1, 1, 1, 2]
    assert [sorted(set(lefts)).index(x) for x in lefts] == [0, 1, 2, 0, 1, 2, 0]
    assert extents[0][1] < extents[1][0] < extents[1][1] < extents[2][0]
    assert extents[0][2] < extents[3][3]
    left, right, bottom, top = extents[0]
    assert (right - left) / (bottom - top) == pytest.approx(5 / 3)


def test_all_text_and_tiles_lie_inside_the_figure() -> None:
    wide = panel(np.ones((30, 5, 5)), title="a title with many words " * 6, columns=6)
    beside = replace(wide, key="other")
    scene = Scene(Photo(np.ones((40, 30, 3), np.float32), "photo"), Box(5, 0, 35, 30), (Mark(Box(6, 1, 20, 9), "a"),))
    for rows in ((Row((wide, beside)),), (Row((wide,), scene), Row((beside,), scene)), (Row((panel([[[1.0]]]),)),)):
        figure = grid(*rows).figure()
        figure.draw_without_rendering()
        width, height = figure.bbox.width, figure.bbox.height
        for text in (text for ax in figure.axes for text in ax.texts):
            box = text.get_window_extent()
            assert -1 <= box.x0 < box.x1 <= width + 1, text.get_text()
            assert -1 <= box.y0 < box.y1 <= height + 1, text.get_text()


def test_boxes_are_drawn_on_the_photograph_in_the_colour_of_their_panels() -> None:
    scene = Scene(
        Photo(np.ones((40, 30, 1), np.float32), "photo"), Box(0, 0, 40, 30), (None, Mark(Box(6, 1, 20, 9), "unit"))
    )
    figure = grid(Row((panel([[[1.0]]]), panel([[[1.0]]], key="b")), scene)).figure()
    photo, first, second = figure.axes[:3]
    outlines: list[Any] = [patch for patch in photo.patches if not patch.get_fill()]
    assert [patch.get_bbox().bounds for patch in outlines] == [(0.5, 5.5, 8, 14)] * 2
    squares = [[p.get_facecolor() for p in ax.patches if p.get_fill()] for ax in (first, second)]
    assert squares == [[], [outlines[1].get_edgecolor()]]
    assert "photo" in [text.get_text() for text in figure.texts]


def test_the_numbers_and_their_manifest_are_saved(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    found = grid(Row((panel(values, channels=(7, 1, 4)),)))
    with np.load(found.save(tmp_path / "a.npz")) as saved:
        np.testing.assert_array_equal(saved["tiles"], values.astype(np.float32))
        assert saved["tiles.channels"].tolist() == [7, 1, 4]
        assert json.loads(str(saved["manifest"])) == found.manifest()
    assert load_file(found.save(tmp_path / "a.safetensors"))["tiles"].shape == (3, 4, 5)
    tile = found.manifest()["rows"][0]["panels"][0]["tiles"][0]
    assert tile["channel"] == 7
    assert tile["highest"] == pytest.approx(values[0].max())
    assert tile["limits"] == [-1, 1]
    for kind in ("png", "svg", "pdf", "html"):
        assert found.save(tmp_path / f"a.{kind}").stat().st_size > 1000
    assert found.describe() == "found something\nand more"
    assert found.figure() is not found.figure()


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (np.ones((2, 2)), {}, r"tiles are \(K, h, w\) or \(K, h, w, 3\), got \(2, 2\). Stack them first"),
        (np.ones((2, 2, 2, 4)), {}, r"got \(2, 2, 2, 4\)"),
        (np.ones((0, 2, 2)), {}, r"got \(0, 2, 2\)"),
        (np.ones((2, 2, 2)), {"titles": ("a",)}, "each tile needs a channel, a title and limits"),
        (np.ones((1, 2, 2)), {"limits": (0.0, 0.0)}, r"a lower and a higher number, got \(0.0, 0.0\)"),
    ],
)
def test_what_is_no_panel(values: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        panel(values, **changes)


def test_drawing_never_touches_pyplot() -> None:
    code = (
        "import sys, vizcnn\n"
        "vizcnn.Filters()(vizcnn.load('simple')).figure()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
