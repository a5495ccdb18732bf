"""The planted network reads its tag, and the benchmark of trust prints what it measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
import trust
import trust_bars
from torch import Tensor

import vizcnn
from vizcnn.results.trust import Trust

GOOD = Trust(need=97, correlation=0.6, blob=0.1, contrast=0.1, contrast_target="cat", runs=101)
ALIKE = replace(GOOD, contrast=0.9)
CHANCE = replace(GOOD, need=40)


def make_row(
    name: str, found: Trust | None, network: str = "net", *, is_wrong: bool = False, again: float = 95
) -> trust_bars.Row:
    return trust_bars.Row(network, "0", name, is_wrong, found, again if found else None)


def cut_pieces(count: int, side: int) -> Tensor:
    """Pieces (N, 3, side, side) of a photograph."""
    pixels = torch.from_numpy(vizcnn.open_photo("sample:grace_hopper").pixels).permute(2, 0, 1)  # (3, 600, 512)
    corners = torch.randint(512 - side, (count, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.stack([pixels[:, top : top + side, left : left + side] for top, left in corners])


@pytest.fixture(scope="module")
def made() -> planted.Planted:
    return planted.make(cut_pieces(400, 32), held_out=50)


def test_the_planted_network_answers_by_the_tag_and_by_nothing_else(made: planted.Planted) -> None:
    assert made.accuracy > 0.9
    moved, labels, _ = planted.plant(cut_pieces(1, 32).expand(64, -1, -1, -1), torch.Generator().manual_seed(1))
    with made.model.borrowed(), torch.no_grad():
        assert float((made.model(moved).argmax(1) == labels).float().mean()) > 0.9  # one photograph, all answers


def test_tags_lie_where_their_boxes_and_labels_say(made: planted.Planted) -> None:
    tag = planted.draw_tag(4)
    for image, label, box in zip(made.images, made.labels.tolist(), made.tags, strict=True):
        top, left, bottom, right = (int(side) for side in (box.top, box.left, box.bottom, box.right))
        torch.testing.assert_close(image[:, top:bottom, left:right], tag)
        name = planted.PLACES[label]
        assert ("top" in name, "bottom" in name) == (bottom <= 10, top >= 20)
        assert ("left" in name, "right" in name) == (right <= 10, left >= 20)


def test_the_same_seed_makes_the_same_network() -> None:
    one, same, other = (planted.make(cut_pieces(20, 32), held_out=4, epochs=1, seed=seed) for seed in (0, 0, 1))
    assert one.model.weights_sha256() == same.model.weights_sha256() != other.model.weights_sha256()
    torch.testing.assert_close(one.images, same.images)


def test_occlusion_of_the_planted_network_is_supported(made: planted.Planted) -> None:
    rows, runs = trust.judge_image(made.model, "0", made.images[0], 0)
    (row,) = [row for row in rows if row.name == "occlusion"]
    assert row.reaches(95)
    assert row.is_supported
    blind = (trust_bars.EDGES, trust_bars.MIDDLE, trust_bars.FIELD)
    assert not any(row.is_supported for row in rows if row.map in blind)
    assert runs == 0


def test_runs_are_counted_image_by_image(tiny: vizcnn.Model) -> None:
    with trust.count_runs(tiny) as runs:
        tiny(torch.zeros(3, 3, 64, 64))
    tiny(torch.zeros(2, 3, 64, 64))
    assert runs == [3]


def test_bars_are_shares_of_all_maps_and_refused_ones_reach_nothing() -> None:
    rows = [make_row("occlusion", found) for found in (GOOD, GOOD, ALIKE, None)]
    rows += [make_row("occlusion", found, trust_bars.PLANTED, again=95) for found in (GOOD, CHANCE)]
    rows += [make_row("guided-backprop", GOOD, is_wrong=True), make_row("guided-backprop", ALIKE)]
    bars = {bar.what: bar for bar in trust_bars.check_bars(rows)}
    assert bars["occlusion: supported"].share == 0.5
    assert not bars["occlusion: supported"].is_kept
    assert bars["planted, occlusion: need at least 95"].share == 0.5
    assert bars["guided-backprop of a wrong class: supported"].share == 1
    assert not bars["guided-backprop of a wrong class: supported"].is_kept
    assert bars["two seeds: need on the same side of 90"].share == pytest.approx(6 / 7)
    assert bars["two seeds: need on the same side of 90"].is_kept
    assert "planted, grad-cam: need at least 90" not in bars


def test_a_random_field_is_the_same_for_the_same_image_alone() -> None:
    one, same, other = (trust.draw_field((32, 48), 1, seed) for seed in (0, 0, 1))
    assert one.shape == (32, 48)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_edges_are_where_the_light_changes() -> None:
    image = torch.zeros(3, 8, 8)
    image[:, :, 4:] = 1
    edges = trust.find_edges(image)
    assert edges.any(0).tolist() == [False, False, False, True, True, False, False, False]


def test_the_benchmark_runs(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(archive, folder / "tiny-imagenet-200.tar.xz")
    given = [str(folder), "--networks", "tiny", "planted", "--images", "1", "--planted", "1", "--epochs", "1"]
    bars = trust.main([*given, "--json", str(tmp_path / "found.json")])
    printed = capsys.readouterr().out
    for bar in bars:
        assert bar.format() in printed
    assert "took 0 runs" in printed
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["rows"]) == 2 * (2 * len(trust_bars.METHODS) + 2 + trust.FIELDS)
    assert {row["network"] for row in found["rows"]} == {"tiny", "planted"}


@pytest.mark.parametrize("name", trust.PUBLISHED)
def test_published_networks_load(data: Path, name: str) -> None:
    model = trust.load_published(data / "weights", name)
    ((_, image),) = trust.read_photos(data / "images" / "photos", model, 1)
    with model.borrowed(), torch.no_grad():
        output = model(image[None])
    assert output.shape == (1, 10 if model.input.size == (32, 32) else 1000)
    assert output.isfinite().all()
