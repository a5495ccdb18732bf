"""The picture of Exemplars: what is drawn where, on which page, and whether it can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from legibility import find_faults
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from support import ORIGIN

import vizcnn
from vizcnn.errors import ParameterError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import Excited, Exemplars, make_exemplar, make_mask

pytestmark = pytest.mark.filterwarnings("ignore:no installed font", "ignore:matplotlib .* draws Arabic", "ignore:Glyph")

RECTIFIED = {"mean": 0.5, "sd": 1.25, "lowest": 0.0, "highest": 9.0, "share of zeros": 0.75}
SIGNED = {"mean": -0.5, "sd": 1.25, "lowest": -7.0, "highest": 9.0, "share of zeros": 0.0}
DEAD = {"mean": 0.0, "sd": 0.0, "lowest": 0.0, "highest": 0.0, "share of zeros": 1.0}
CORNER = np.array([[1, 0, 0, 0]] + [[0] * 4] * 3, np.float32)
"""A map that responds in the upper left."""


def exemplar(
    number: int, size: tuple[int, int], kind: str, name: str = "", channels: int = 3, label: str | None = None
) -> Any:
    """kind: `box`, a part of the photograph; `mask`, all of it is seen and the channel responds in a corner; `none`."""
    height, width = size
    pixels = np.full((height, width, channels), 0.8, np.float32)
    pixels[:2, :2] = number / 200  # by which a photograph is known again
    side = min(size)
    top, left = (height - side) / 2, (width - side) / 2
    seen = Box(top, left, top + side, left + side)
    box = {"box": Box(top, left, top + side / 4, left + side / 2), "mask": seen, "none": None}[kind]
    mask = make_mask(CORNER, 0.0, (8, 8), seen) if kind == "mask" else None
    photo = Photo(pixels, name or f"{number:05}.png")
    return make_exemplar(number, photo.name, label, 10 - number / 50, (0, 0), photo, seen, box, mask)


def make_rows(kind: str, count: int = 9, size: tuple[int, int] = (60, 80), **others: Any) -> Sequence[Excited]:
    statistics = SIGNED if kind == "box" else RECTIFIED
    return [Excited(f"layer:{kind}", tuple(exemplar(i, size, kind, **others) for i in range(count)), statistics)]


def make_result(rows: Sequence[Excited], **others: Any) -> Exemplars:
    return Exemplars(ORIGIN, tuple(rows), "the maximum over positions", **others)


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def pictures_of(figure: Figure) -> list[AxesImage]:
    return list(figure.axes[0].get_images())


NAMES = [
    "a name that goes on and on, as cameras and people who are careful give them.jpeg",
    "$\\frac{a}{b}$.png",
    "صورة قطة.png",
    "Ελληνικά γράμματα σε ένα όνομα.png",
    "кошка.png",
]
SHAPES = {"landscape": (40, 90), "portrait": (90, 40), "square": (50, 50), "tiny": (16, 16), "strip": (12, 200)}


@pytest.mark.parametrize("style", ["screen", "dark", "print", "print-wide"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_text_can_be_read_whatever_the_shape_of_the_photographs(shape: str, style: str) -> None:
    """Boxes and masks, names in several scripts and of any length, a dead channel, and a long name of a layer."""
    rows = [
        *make_rows("box", 9, SHAPES[shape]),
        Excited("backbone.stages.3.blocks.11.mlp.fc2.very.deep:17", (), DEAD),
        *make_rows("mask", 4, SHAPES[shape], channels=1),
        Excited(
            "x" * 90, tuple(exemplar(i, SHAPES[shape], "none", name) for i, name in enumerate(3 * NAMES)), RECTIFIED
        ),
    ]
    with vizcnn.use_style(style):
        result = make_result(rows)
        for page in range(1, result.pages + 1):
            figure = result.figure(page=page)
            assert find_faults(figure) == []
            width, height = figure.get_size_inches()
            assert width <= vizcnn.results.style.current_style().width
            assert height <= vizcnn.results.style.current_style().height + 1e-6


@pytest.mark.parametrize("count", [1, 2, 5, 9, 10, 100])
def test_any_number_of_photographs_is_drawn_once_in_order_of_rank(count: int) -> None:
    result = make_result([*make_rows("none", count), *make_rows("none", min(count, 3))])
    values = []
    for page in range(1, result.pages + 1):
        figure = result.figure(page=page)
        assert find_faults(figure) == []
        shown = [image.get_array() for image in pictures_of(figure)]
        values += [float(np.asarray(array)[0, 0, 0]) for array in shown if array is not None]
    expected = [i / 200 for i in range(count)] + [i / 200 for i in range(min(count, 3))]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_nine_photographs_are_one_line_on_a_screen_and_several_in_a_column_of_a_paper() -> None:
    result = make_result(make_rows("none", 9, (50, 50)))
    for style, lines in (("screen", 1), ("print", 3)):
        with vizcnn.use_style(style):
            tops = {round(image.get_extent()[3], 3) for image in pictures_of(result.figure())}
        assert len(tops) == lines


def test_pictures_do_not_overlap_and_stay_on_the_page() -> None:
    row = replace(make_rows("box", 9, (60, 40))[0], beside=(("filter", np.ones((5, 5, 3), np.float32)),) * 2)
    figure = make_result([row, *make_rows("mask", 5)]).figure()
    width, height = figure.get_size_inches()
    places = [image.get_extent() for image in pictures_of(figure) if np.asarray(image.get_array()).shape[-1] != 4]
    for left, right, bottom, top in places:
        assert 0 < left < right < width
        assert 0 < top < bottom < height
    for one, other in ((a, b) for i, a in enumerate(places) for b in places[:i]):
        apart = one[0] >= other[1] or other[0] >= one[1] or one[3] >= other[2] or other[3] >= one[2]
        assert apart
    written = [text.get_window_extent() for text in figure.axes[0].texts]
    figure.canvas.draw()
    for left, right, bottom, top in places:
        corners = figure.axes[0].transData.transform([(left, bottom), (right, top)])
        for text in written:
            across = min(corners[1][0], text.x1) - max(corners[0][0], text.x0)
            down = min(corners[1][1], text.y1) - max(corners[0][1], text.y0)
            assert min(across, down) <= 1


def test_pages_hold_whole_lines_and_rows_go_on_under_their_name() -> None:
    result = make_result([*make_rows("box", 100), Excited("dead:1", (), DEAD)])
    assert result.pages > 1
    figures = [result.figure(page=page) for page in range(1, result.pages + 1)]
    for before, figure in pairwise(figures):
        assert "layer:box" in texts_of(before)
        assert "continued" in texts_of(figure)
        assert figure.get_size_inches()[0] == before.get_size_inches()[0]
    assert "dead:1" in texts_of(figures[-1])
    with pytest.raises(ParameterError, match=f"pages 1 to {result.pages}, got 99"):
        result.figure(page=99)


def test_boxes_are_drawn_where_they_are() -> None:
    row = make_rows("box", 3, (60, 80))[0]
    (ax,) = make_result([row]).figure().axes
    drawn = [patch.get_bbox() for patch in ax.patches if isinstance(patch, Rectangle)]
    for one, image in zip(row.exemplars, ax.get_images()[::2], strict=True):  # between them are the parts
        left, right, bottom, top = image.get_extent()
        scale = (right - left) / 80
        assert (bottom - top) / 60 == pytest.approx(scale)
        assert one.box is not None
        expected = (
            left + one.box.left * scale,
            top + one.box.top * scale,
            left + one.box.right * scale,
            top + one.box.bottom * scale,
        )
        assert any(np.allclose(box.extents, expected) for box in drawn)


def test_a_photograph_is_dark_where_the_channel_does_not_respond_and_bright_where_it_does() -> None:
    row = make_rows("mask", 1, (80, 80))[0]
    figure = make_result([row]).figure()
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[..., 0] / 255  # type: ignore[attr-defined]
    ax, image = figure.axes[0], pictures_of(figure)[0]
    left, right, bottom, top = image.get_extent()

    def brightness(y: int, x: int) -> float:
        at = left + (x + 0.5) / 80 * (right - left), top + (y + 0.5) / 80 * (bottom - top)
        column, line = ax.transData.transform(at)
        return float(canvas[canvas.shape[0] - 1 - int(line), int(column)])

    mask = row.exemplars[0].mask
    assert mask is not None
    cover = mask.cover().repeat(10, 0).repeat(10, 1)
    assert cover[5, 5]
    assert not cover[40, 40]
    assert brightness(5, 5) == pytest.approx(0.8, abs=0.01)
    assert brightness(12, 5) == pytest.approx(0.8, abs=0.01)
    assert brightness(40, 40) == pytest.approx(0.8 * 0.38, abs=0.02)
    assert brightness(75, 5) == pytest.approx(0.8 * 0.38, abs=0.02)
    assert brightness(5, 75) == pytest.approx(0.8 * 0.38, abs=0.02)


def test_no_part_is_drawn_below_where_it_would_be_the_whole_photograph() -> None:
    """As from an index without the network: the field covers everything, and says nothing."""
    one = exemplar(0, (50, 50), "mask")
    plain = replace(one, mask=None, crop=one.pixels)
    assert not plain.has_part
    assert one.has_part
    assert len(pictures_of(make_result([Excited("deep:0", (plain,), RECTIFIED)]).figure())) == 1


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        (RECTIFIED, "mean 0.5, standard deviation 1.25, at most 9, zero in 75% of all cases"),
        (SIGNED, "mean -0.5, standard deviation 1.25, between -7 and 9"),
        ({**RECTIFIED, "share of zeros": 0.001}, "mean 0.5, standard deviation 1.25, at most 9"),
        (
            {**RECTIFIED, "share of zeros": 0.9999},
            "mean 0.5, standard deviation 1.25, at most 9, zero in over 99.5% of all cases",
        ),
    ],
)
def test_statistics_that_say_nothing_are_left_out(statistics: dict[str, float], said: str) -> None:
    row = replace(make_rows("none", 2)[0], statistics=statistics)
    assert row.describe_statistics() == said
    assert said in " ".join(texts_of(make_result([row]).figure()))
    assert row.summary()["statistics"] == statistics  # files keep all of them


@pytest.mark.parametrize("alive", [0, 1, 2])
def test_a_dead_channel_has_its_sentence_wherever_it_stands(alive: int, tmp_path: Path) -> None:
    rows = [Excited(f"dead:{i}", (), DEAD) for i in range(3)]
    rows[alive] = make_rows("box", 9)[0]
    result = make_result(rows)
    figure = result.figure()
    assert texts_of(figure).count("no image excites it, its value is always 0") == 2
    assert find_faults(figure) == []
    assert (
        sum(line.endswith("no image excites it, its value is always 0") for line in result.describe().split("\n")) == 2
    )
    assert len(pictures_of(figure)) == 18
    result.save(tmp_path / "x.png")


def test_dead_channels_alone_are_sentences_too() -> None:
    figure = make_result([Excited(f"dead:{i}", (), DEAD) for i in range(2)]).figure()
    assert texts_of(figure).count("no image excites it, its value is always 0") == 2
    assert find_faults(figure) == []


def test_a_dead_channel_keeps_what_stands_beside_it() -> None:
    dead = Excited("conv:3", (), DEAD, beside=(("filter", np.ones((5, 5, 3), np.float32)),))
    figure = make_result([dead, *make_rows("box", 4)]).figure()
    assert "filter" in texts_of(figure)
    assert len(pictures_of(figure)) == 9


def test_sentences_are_short_whatever_names_are() -> None:
    row = Excited("conv:0", tuple(exemplar(i, (9, 9), "none", "n" * 300, label="c" * 300) for i in range(5)), SIGNED)
    assert len(row.describe()) < 320
    named = Excited("conv:0", (exemplar(0, (9, 9), "none", "cat.png", label="tabby"),), SIGNED)
    assert named.describe() == "conv:0: 10 cat.png (tabby)"


def test_a_class_has_no_positions_to_rank_by() -> None:
    (row,) = make_rows("none")
    (_, placed, *_) = texts_of(make_result([row]).figure())
    assert placed == "Images that excite each channel most, ranked by the maximum over positions"
    without = replace(row, exemplars=tuple(replace(one, at=None) for one in row.exemplars))
    (_, heading, *_) = texts_of(make_result([without]).figure())
    assert heading == "Images that excite each target most"
