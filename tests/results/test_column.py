"""A column of a table: its lines stand where those of other columns do, in every kind of file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vizcnn.results.column import Column

LINES = ["l", "1,234", "", "(gjÁ)", "-"]


def draw(side: str, lines: list[str], kind: str = "png", **how: Any) -> bytes:
    figure = Figure((3, 4), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, 3), ylim=(4, 0))
    ax.add_artist(Column(1.5, 0.5, lines, 0.75, ha=side, fontsize=12))
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=100, **how)
    return file.getvalue()


def find_ink(side: str, lines: list[str], **how: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows and the columns of px that have ink."""
    with Image.open(io.BytesIO(draw(side, lines, **how))) as picture:
        ink = np.asarray(picture.convert("L")) < 128
    return np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))


@pytest.mark.parametrize("i", range(5))
def test_a_line_stands_where_it_stands_in_a_column_of_equal_lines(i: int) -> None:
    """So what the other lines are does not move it; 0.75 of 100 px lie between two lines."""
    alone = [""] * i + ["1,234"]
    rows, _ = find_ink("left", alone)
    assert abs((rows.min() + rows.max()) / 2 - (50 + 75 * i)) < 3
    mixed = [*LINES[:i], "1,234"]
    assert {*rows} <= {*find_ink("left", mixed)[0]}


def test_lines_begin_or_end_at_one_place() -> None:
    for line in ("HH", "E,23H", "BH"):
        assert abs(find_ink("left", [line])[1].min() - 150) <= 4
        assert abs(find_ink("right", [line])[1].max() - 150) <= 4


def test_a_tight_picture_holds_all_lines() -> None:
    whole, tight = find_ink("right", LINES), find_ink("right", LINES, bbox_inches="tight")
    assert len(whole[0]) == pytest.approx(len(tight[0]), abs=2)


def test_a_vector_file_holds_each_line_as_a_text_of_its_own() -> None:
    assert draw("right", LINES, "svg").count(b"<!-- ") == 4
