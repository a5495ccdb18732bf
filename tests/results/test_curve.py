"""Curve: lines over one scale, drawn as the numbers say, with the area under each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from safetensors.numpy import load_file
from support import ORIGIN

import vizcnn
from vizcnn.errors import ShapeError

NAN = float("nan")


def curve(lines: Any = ((1.0, 0.5, 0.0), (1.0, 1.0, 0.0)), x: Any = (0.0, 50.0, 100.0), **changes: Any) -> vizcnn.Curve:
    lines = np.asarray(lines, np.float64)
    given = {"names": tuple(f"line {i}" for i in range(len(lines))), "x_name": "deleted", "y_name": "score", **changes}
    return vizcnn.Curve(ORIGIN, np.asarray(x, np.float64), lines, **given)


def test_the_area_is_that_between_the_line_and_zero() -> None:
    """Of shapes whose area is known; below zero it is negative."""
    x = np.linspace(0, np.pi, 2001)
    found = curve([np.sin(x), np.cos(x), np.full_like(x, 2), x - 3], x).areas
    np.testing.assert_allclose(found, [2, 0, 2 * np.pi, np.pi**2 / 2 - 3 * np.pi], atol=1e-6)


def test_points_may_lie_at_any_distance_from_each_other() -> None:
    np.testing.assert_allclose(curve([[0, 2, 2, 0]], [0, 1, 4, 4.5]).areas, [1 + 6 + 0.5])


def test_of_a_line_with_a_gap_the_area_is_not_known() -> None:
    found = curve([[1, NAN, 1], [1, 1, 1]])
    assert np.isnan(found.areas[0])
    assert found.areas[1] == 100
    assert found.summary()["lines"][0]["area"] is None
    json.dumps(found.manifest(), allow_nan=False)


def test_the_numbers_are_saved_and_open_again(tmp_path: Path) -> None:
    made = curve(
        [[1, 0.5, 0.25], [1, NAN, -2]], x_unit="%", y_unit="logit", title="t", findings=("it falls",), partial=True
    )
    for ending in (".npz", ".safetensors", ".json"):
        opened = vizcnn.load_result(made.save(tmp_path / f"a{ending}"))
        assert isinstance(opened, vizcnn.Curve)
        for name, values in made.arrays().items():
            np.testing.assert_array_equal(opened.arrays()[name], values)
            assert opened.arrays()[name].dtype == np.float64
        empty: dict[str, Any] = {"x": np.arange(2.0), "lines": np.zeros((2, 2))}
        assert replace(opened, **empty).manifest() == replace(made, **empty).manifest()
        assert opened.describe() == made.describe()
    assert set(load_file(tmp_path / "a.safetensors")) == {"x", "lines", "areas"}
    for kind in ("png", "pdf", "svg", "html"):
        assert made.save(tmp_path / f"a.{kind}").stat().st_size > 1000


def test_it_describes_itself_with_units() -> None:
    made = curve([[0.875, 0.5, 0.25]], names=("random",), x_unit="%", findings=("it falls",))
    assert made.describe() == ("it falls\nrandom: score 0.875 to 0.25 while deleted goes from 0 % to 100 %; area 53.1")
    assert replace(made, partial=True).describe().endswith("\nInterrupted: the curve is partial.")


def test_what_is_drawn_is_what_the_numbers_say() -> None:
    made = curve(x_unit="%", y_unit="logit", title="$x$ of _these", names=("_first", "second $y$"))
    ax = made.plot()
    lines = [line for line in ax.lines if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    for line, values in zip(lines, made.lines, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), made.x)
        np.testing.assert_array_equal(line.get_ydata(), values)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("deleted [%]", "score [logit]")
    assert ax.get_title() == "$x$ of _these"
    assert not ax.title.get_parse_math()
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["_first   area 50", "second $y$   area 75"]
    shown = [to_hex(handle.get_color()) for handle in legend.legend_handles]  # type: ignore[union-attr]
    assert shown == [to_hex(line.get_color()) for line in lines]
    assert len(set(shown)) == 2
    assert len(curve().figure().axes) == 1


def test_zero_is_in_sight() -> None:
    low, high = curve([[5, 6, 7]]).plot().get_ylim()
    assert low <= 0 < 7 <= high
    low, high = curve([[-5, -6, -7]]).plot().get_ylim()
    assert low <= -7 < 0 <= high


def test_lines_can_be_told_apart() -> None:
    ax = curve(np.arange(60.0).reshape(20, 3)).plot()
    styles = [(line.get_color(), line.get_linestyle()) for line in ax.lines if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    assert len(set(styles)) == 20


@pytest.mark.parametrize(
    ("lines", "x", "message"),
    [
        ([[1.0]], [0.0], r"x is \(P,\) numbers that increase, at least two, got \(1,\)"),
        ([[1, 2, 3]], [0, 2, 1], r"numbers that increase.* \[0. 2. 1.\]. Sort them"),
        ([[1, 2, 3]], [0, 1, NAN], "numbers that increase"),
        ([[1, 2]], [0, 1, 2], r"got \(1, 2\) for 1 names and 3 points"),
        (np.ones((0, 3)), [0, 1, 2], r"got \(0, 3\) for 0 names and 3 points"),
    ],
)
def test_what_is_no_curve(lines: Any, x: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        curve(lines, x)


def test_areas_that_say_nothing_are_not_told() -> None:
    made = curve()
    plain = replace(made, has_areas=False)
    for one, told in ((made, True), (plain, False)):
        legend = one.plot().get_legend()
        assert legend is not None
        texts = [text.get_text() for text in legend.get_texts()]
        said = one.describe(), str(one.summary()), str([*one.arrays()]), str(texts)
        assert ["area" in text for text in said] == [told] * 4
