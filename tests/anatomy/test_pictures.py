"""Pictures of units: the same alone and in company, kept batch by batch, with the number that the unit reaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support_sites import make_varied

import vizcnn
from vizcnn.anatomy import pictures
from vizcnn.anatomy.keeping import Keeper
from vizcnn.anatomy.pictures import make_pictures
from vizcnn.ascent import RECIPES, Outcome, optimize
from vizcnn.graph.sites import Site, find_sites

QUICK = replace(RECIPES["lucid"], steps=4)


@pytest.fixture(scope="module")
def varied() -> vizcnn.Model:
    return make_varied()


def find(model: vizcnn.Model, name: str) -> Site:
    return next(site for site in find_sites(model).sites if site.name == name)


@pytest.mark.parametrize("name", ["stem", "block1.conv2", "wide", "fc2"])
def test_what_a_unit_reaches_is_what_the_network_gives_for_the_stored_picture(varied: vizcnn.Model, name: str) -> None:
    """Behind an activation that no module gives too, and for a class."""
    site = find(varied, name)
    before = varied.weights_sha256()
    with varied.borrowed():
        made = make_pictures(varied, site, [1, 4], QUICK)
        assert made.pixels.shape == (2, 40, 32, 3)
        images, seen = torch.from_numpy(made.pixels).double().permute(0, 3, 1, 2) / 255, dict[str, torch.Tensor]()
        layer = {"stem": "stem", "block1.conv2": "block1", "wide": "act", "fc2": "fc2"}[name]
        handle = varied.layer(layer).register_forward_hook(lambda _m, _i, out: seen.update(out=out.clone()))
        varied(images)
        handle.remove()
    values = F.relu(seen["out"]) if name == "stem" else seen["out"]
    expected = [float(values[0, 1].max()), float(values[1, 4].max())]
    np.testing.assert_allclose(made.reached, expected, rtol=1e-5)
    assert varied.weights_sha256() == before


def test_interrupted_pictures_go_on_where_they_were(
    varied: vizcnn.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "BATCH", 2)
    site, keeper = find(varied, "block1.conv2"), Keeper(tmp_path / "kept")
    with varied.borrowed():
        alone = make_pictures(varied, site, range(6), QUICK)
        first = make_pictures(varied, site, range(4), QUICK, keeper=keeper)
        files = {file: file.stat().st_mtime_ns for file in keeper.folder.iterdir()} if keeper.folder else {}
        assert len(files) == 2
        (damaged := sorted(files)[0]).write_bytes(b"nothing")
        whole = make_pictures(varied, site, range(6), QUICK, keeper=keeper)
        other = make_pictures(varied, site, range(4), QUICK, keeper=keeper, seed=1)
    assert np.array_equal(whole.pixels, alone.pixels)
    assert np.array_equal(whole.pixels[:4], first.pixels)
    assert {file for file, when in files.items() if file.stat().st_mtime_ns != when} == {damaged}
    assert not np.array_equal(other.pixels, first.pixels)


def test_what_ctrl_c_left_unfinished_is_not_kept(
    varied: vizcnn.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any, **more: Any) -> Outcome:
        return replace(optimize(*given, **more), finished=False)

    monkeypatch.setattr(pictures, "optimize", stop)
    with varied.borrowed(), pytest.raises(KeyboardInterrupt):
        make_pictures(varied, find(varied, "stem"), [0, 1], QUICK, keeper=Keeper(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_no_units_have_no_pictures(varied: vizcnn.Model) -> None:
    made = make_pictures(varied, find(varied, "stem"), [], QUICK)
    assert (made.pixels.shape, len(made.reached)) == ((0, 40, 32, 3), 0)
