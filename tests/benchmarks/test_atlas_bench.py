"""The benchmark of the atlas writes sites of the size that was asked for, and visits them."""

from __future__ import annotations

from pathlib import Path

import atlas
import pytest
from atlas_records import count_units
from support_site import find_chromium


@pytest.mark.parametrize("units", [200, 2000, 26000])
def test_a_made_up_network_has_about_so_many_units(units: int) -> None:
    records = atlas.make_records(units, 10, 20)
    assert count_units(records) == pytest.approx(units, rel=0.15)
    assert max(layer.shape[0] for layer in records.network.layers) <= 2000


def test_a_visit_gives_a_row_of_figures(tmp_path: Path) -> None:
    find_chromium()
    figures = atlas.measure(atlas.make_records(60, 8, 16), tmp_path / "site")
    assert figures.row().count("|") == atlas.HEADER.splitlines()[0].count("|")
    assert figures.bytes > 100_000
    assert min(figures.wall, figures.step, figures.search) > 0
