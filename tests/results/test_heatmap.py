"""Pictures of heatmaps: nothing is cut off, whatever their shapes and numbers, and colours say what the values are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from legibility import find_faults
from PIL import Image
from support_maps import NAMES, heatmap

import vizcnn
from vizcnn.errors import ParameterError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results.overlay import Colours, paint_map
from vizcnn.results.style import STYLES

pytestmark = pytest.mark.filterwarnings("ignore:no installed font", "ignore:matplotlib .* draws Arabic", "ignore:Glyph")


@pytest.mark.parametrize("style", ["screen", "print", "print-wide"])
@pytest.mark.parametrize(
    ("images", "targets", "size", "alike"),
    [
        (1, 1, (60, 80), True),
        (1, 1, (16, 16), True),
        (1, 3, (400, 40), False),
        (1, 3, (40, 400), True),
        (2, 5, (60, 80), False),
        (6, 1, (80, 60), True),
        (6, 2, (60, 80), True),
        (7, 1, (60, 80), True),
        (9, 3, (90, 30), False),
        (8, 1, (40, 400), True),
    ],
)
def test_nothing_is_cut_off(images: int, targets: int, size: tuple[int, int], alike: bool, style: str) -> None:
    with vizcnn.use_style(style):
        found = heatmap(images, targets, size, alike=alike)
        for page in {1, found.pages}:
            figure = found.figure(page)
            assert find_faults(figure) == []
            assert figure.get_figwidth() <= STYLES[style].width + 0.01
            assert figure.get_figheight() <= STYLES[style].height + 0.01


@pytest.mark.parametrize("style", ["screen", "print"])
@pytest.mark.parametrize("size", [(60, 80), (400, 100), (16, 16)])
def test_a_single_map_fits_its_figure(size: tuple[int, int], style: str) -> None:
    with vizcnn.use_style(style):
        assert find_faults(heatmap(size=size, signed=False).plot().figure) == []  # type: ignore[arg-type]


def show(values: Any, **how: Any) -> np.ndarray:
    """What is painted for a map (H, W) over a white photograph of its size."""
    values = np.asarray(values, np.float32)
    height, width = values.shape
    photo = Photo(np.ones((height, width, 3), np.float32), "white")
    colours = Colours.of([values], signed=how.pop("signed", False), percentile=100)
    return paint_map(photo, Box(0, 0, height, width), values, colours, max(height, width))


def test_where_a_map_is_zero_the_photograph_shows_as_it_is() -> None:
    values = np.zeros((4, 6))
    values[1, 2], values[3, 3] = 1, 0.01
    painted = show(values)
    assert (painted[values == 0] == 1).all()
    assert (painted[values > 0] < 1).any(1).all()  # however small it is: there is no noise


def test_noise_is_no_veil_and_what_is_strong_looks_as_before() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=(30, 30))) * 0.05
    values[10:14, 10:14] = 1
    painted = show(values)
    assert (painted == 1).all(2).mean() == pytest.approx(0.5, abs=0.01)  # the weaker half
    alone = np.zeros((30, 30))
    alone[10:14, 10:14] = 1
    np.testing.assert_allclose(painted[10:14, 10:14], show(alone)[10:14, 10:14], atol=1e-6)


def test_a_map_that_is_strong_everywhere_is_drawn_everywhere() -> None:
    painted = show(np.full((5, 5), 3.0))
    assert (painted < 1).any(2).all()
    np.testing.assert_allclose(painted, painted[0, 0][None, None].repeat(5, 0).repeat(5, 1))


def test_the_colour_bar_shows_the_colours_over_white() -> None:
    values = np.linspace(0, 1, 64).reshape(8, 8)
    colours = Colours.of([values.astype(np.float32)], signed=False, percentile=100)
    ramp = colours.ramp()(values)[..., :3]
    opaque = 1 - (1 - show(values)) / 0.85  # the photograph is to show through, and the bar is not
    np.testing.assert_allclose(ramp, opaque, atol=0.02)


def test_tiles_and_panels_show_the_same() -> None:
    """A map with a hole, over part of a photograph."""
    found = heatmap(images=1, size=(60, 80))
    found = replace(found, marks=((None,),), second_marks=())
    found.values[0, 0, 5, 5] = np.nan
    ax = found.plot()
    photo, colours = found.photos[0], Colours.of([found.values[0, 0]], signed=True, percentile=100)
    painted = paint_map(photo, found.seen[0], found.values[0, 0], colours, 80)
    assert painted.shape == (60, 80, 3)
    assert np.isfinite(painted).all()
    values, alpha = np.asarray(ax.images[1].get_array()), ax.images[1].get_alpha()
    for y, x in ((2, 3), (0, 0), (7, 4), (5, 5)):
        down, across = int(7.5 + (y + 0.5) * 46.5 / 8), int(10 + (x + 0.5) * 62 / 8)
        under = 0.35 + 0.65 * (photo.held[down, across] @ [0.299, 0.587, 0.114])
        over = np.array(ax.images[1].to_rgba(values)[y, x, :3])
        expected = under * (1 - alpha[y, x]) + over * alpha[y, x]  # type: ignore[index]
        np.testing.assert_allclose(painted[down, across], expected, atol=0.01)


def labels(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_the_best_and_the_worst_come_first_then_the_others_in_order() -> None:
    found = heatmap(20, scores=[[(7 * i) % 20] for i in range(20)])
    shown = [int(text) for text in labels(found.figure()) if text.isdigit()]
    first = [19, 18, 17, 0, 1, 2]
    assert shown == [*first, *[score for score in found.scores[:, 0].tolist() if score not in first]]


def test_many_tiles_are_drawn_into_few_axes() -> None:
    """Axes are what takes long: with three for each map, fifty maps took a minute and a half."""
    assert len(heatmap(50).figure().axes) <= 3


def test_all_pages_together_show_each_image_once() -> None:
    found = heatmap(150, scores=np.arange(150)[:, None])
    assert found.pages > 1
    shown = [text for page in range(1, found.pages + 1) for text in labels(found.figure(page))]
    numbers = sorted(int(text) for text in shown if text.isdigit())
    assert numbers == [*range(150)]
    with pytest.raises(ParameterError, match=f"pages 1 to {found.pages}, got {found.pages + 1}"):
        found.figure(found.pages + 1)


def test_a_notebook_gets_a_picture_of_at_most_2000_px() -> None:
    from base64 import b64decode
    from io import BytesIO

    bundle = heatmap(150)._repr_mimebundle_()
    assert Image.open(BytesIO(b64decode(bundle["image/png"]))).size[1] <= 2000


def test_chosen_images_are_the_same_result_with_these(tmp_path: Path) -> None:
    found = heatmap(5, 2)
    some = found.select([4, 0])
    np.testing.assert_array_equal(some.values, found.values[[4, 0]])
    np.testing.assert_array_equal(some.scores, found.scores[[4, 0]])
    assert [photo.name for photo in some.photos] == [NAMES[4], NAMES[0]]
    assert [name for name, _ in some.provenance.images] == ["4", "0"]
    assert some.describe().splitlines() == [f"{name}: found" for name in (NAMES[4], NAMES[0]) for _ in range(2)]
    assert len(some.manifest()["images"]) == len(some.provenance.targets) == 2
    assert vizcnn.load_result(some.save(tmp_path / "a.npz")).manifest() == some.manifest()
    np.testing.assert_array_equal(found.select(np.array([1])).values, found.values[[1]])
    for wrong in ([], [5], [-1]):
        with pytest.raises(ParameterError, match="takes numbers of images from 0 to 4"):
            found.select(wrong)
    masks: list[Any] = [[True, False], found.scores[:, 0] > 0, torch.tensor([True]), [1.7], ["1"], np.array([0.0])]
    for wrong in masks:
        with pytest.raises(ParameterError, match=r"select\(\) takes numbers of images, got "):
            found.select(wrong)
    np.testing.assert_array_equal(found.select(torch.tensor([3, 1])).values, found.values[[3, 1]])


def test_images_are_sorted_by_score_or_name() -> None:
    found = heatmap(4, 2, scores=[[1, 9], [3, 8], [2, 7], [3, 10]])
    assert [name for name, _ in found.sort().provenance.images] == ["1", "3", "2", "0"]
    assert [name for name, _ in found.sort("score", target=1).provenance.images] == ["3", "0", "1", "2"]
    assert [photo.name for photo in found.sort("name").photos] == sorted(NAMES[:4])
    with pytest.raises(ParameterError, match="by score or name, got 'size'"):
        found.sort("size")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="has targets 0 to 1, got 2"):
        found.sort(target=2)


def test_both_boxes_are_kept_and_named(tmp_path: Path) -> None:
    found = heatmap()
    maps = found.manifest()["images"][0]["maps"][0]
    assert maps["box"] == {"top": 12.0, "left": 16.0, "bottom": 24.0, "right": 40.0}
    assert maps["second_box"] == {"top": 0, "left": 0, "bottom": 5, "right": 9}
    opened = vizcnn.load_result(found.save(tmp_path / "a.npz"))
    assert isinstance(opened, vizcnn.Heatmap)
    assert (opened.marks, opened.second_marks) == (found.marks, found.second_marks)
    said = " ".join(labels(found.figure()))
    assert "box: covering here costs most" in said
    assert "dashed: this window alone: −1.23" in said


def test_results_of_one_box_need_no_second() -> None:
    found = replace(heatmap(), second_marks=())
    assert found.manifest()["images"][0]["maps"][0]["second_box"] is None
    assert "dashed" not in " ".join(labels(found.figure()))
