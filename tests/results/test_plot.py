"""plot(): one picture of a result in axes of the person's own, who may have drawn and written there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from support import ORIGIN

import vizcnn
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import Panel, Pictures, Prediction, Row, Scatter, Scenery, Thumbnail

NAME = "$\\frac{$ \x1b"


def pixels(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def panel(key: str) -> Panel:
    return Panel(key, f"{key} {NAME}", pixels(4, 3)[..., 0][None] - 0.5, (7,), ("7",), ((-1.0, 1.0),), "weight")


def scatter(labels: Sequence[str | None]) -> Scatter:
    count = len(labels)
    points = np.random.default_rng(1).random((count, 2))
    texts = tuple(map(str, range(count)))
    thumbnail = Thumbnail(0, pixels(4, 4))
    axes = ("across", "up")
    return Scatter(ORIGIN, points, axes, f"map {NAME}", np.arange(count), texts, tuple(labels), (thumbnail,), {}, ())


def heatmap() -> vizcnn.Heatmap:
    origin = replace(ORIGIN, targets=((f"cat {NAME}", "dog"),), target_specs=(("0", "1"),))
    values = np.random.default_rng(0).normal(size=(1, 2, 6, 6)).astype(np.float32)
    photo, seen = Photo(pixels(6, 6), NAME), Box(0, 0, 6, 6)
    return vizcnn.Heatmap(origin, values, np.ones((1, 2), np.float32), ("logit lost", "logit lost"), (photo,), (seen,),
                          ((Prediction("cat", 0.5),),), ((None, None),), (("a", "b"),))  # fmt: skip


def pictures() -> Pictures:
    scenes = [
        Scenery(pixels(5, 8, i), (("from", Photo(pixels(5, 8, 9))),), {}, np.empty((0, 5, 8, 3), np.uint8))
        for i in (1, 2)
    ]
    return Pictures(ORIGIN, tuple(scenes))


RESULTS = {
    "Heatmap": heatmap(),
    "ImageGrid": vizcnn.ImageGrid(ORIGIN, (Row((panel("a"), panel("b"))),), ("found",)),
    "Table": vizcnn.Table(ORIGIN, ("layer", "units"), ((f"conv {NAME}", 1234), ("fc", 5)), ("found",)),
    "Scatter": scatter(["cat", "dog", "_dog", None]),
    "Pictures": pictures(),
    "Curve": vizcnn.Curve(ORIGIN, np.arange(3.0), np.ones((2, 3)), ("a", NAME), "step", "score", title=NAME),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_plot_goes_where_it_is_wanted_and_leaves_the_rest_alone(kind: str, tmp_path: Path) -> None:
    figure = Figure(figsize=(9, 4))
    mine, here = figure.subplots(1, 2)
    mine.set_title("$x^2$")
    mine.plot([1, 2], [3, 4])
    mine.legend(["$y$"])
    drawing: Any = RESULTS[kind]
    assert drawing.plot(here) is here
    assert [text.get_parse_math() for text in (mine.title, *mine.get_legend().get_texts())] == [True, True]
    assert mine.get_title() == "$x^2$"
    assert len(mine.lines) == 1
    assert here.get_children() != []
    figure.savefig(tmp_path / "a.png")  # texts of any characters can be drawn


@pytest.mark.parametrize("kind", RESULTS)
def test_without_axes_a_plot_has_a_figure_of_its_own(kind: str, tmp_path: Path) -> None:
    drawing: Any = RESULTS[kind]
    first, second = drawing.plot(), drawing.plot()
    assert first.figure is not second.figure
    first.figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def images(ax: Any) -> list[Any]:
    return [np.asarray(image.get_array()) for image in ax.images]


def test_a_plot_is_what_the_figure_shows() -> None:
    """The same numbers with the same texts, for each of several pictures."""
    grid, made, table, plane = (RESULTS[kind] for kind in ("ImageGrid", "Pictures", "Table", "Scatter"))
    for i, ax in enumerate(grid.figure().axes[:2]):
        alone = grid.plot(panel=i)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(images(alone), images(ax))
        texts = [text.get_text() for text in ax.texts]
        said = [text.get_text().removeprefix(f"{ORIGIN.probe}  ") for text in alone.texts]  # who has found it
        assert said == texts
        assert f"{ORIGIN.probe}  {texts[1]}" in [text.get_text() for text in alone.texts]
    for i, ax in enumerate(made.figure().axes[1::2]):
        alone = made.plot(picture=i)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(images(alone), images(ax))
        np.testing.assert_array_equal(images(alone)[0], made.scenes[i].image)  # type: ignore[attr-defined]
    texts = [text.get_text() for text in table.plot().texts]  # type: ignore[attr-defined]
    assert [text.get_text() for text in table.figure().axes[0].texts] == texts
    assert texts == ["layer", "conv $\\frac{$ \\x1b\nfc", "units", "1,234\n5", "found"]
    alone, ax = plane.plot(), plane.figure().axes[0]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(alone.collections[0].get_offsets(), ax.collections[0].get_offsets())
    np.testing.assert_array_equal(alone.collections[0].get_facecolor(), ax.collections[0].get_facecolor())
    assert (alone.get_title(), alone.get_xlabel()) == (ax.get_title(), "across")


def test_a_map_of_points_has_its_legend_with_it() -> None:
    legend = scatter(["cat", "_dog", None]).plot().get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {"cat", "_dog", "unknown"}
    assert scatter([None, None]).plot().get_legend() is None
