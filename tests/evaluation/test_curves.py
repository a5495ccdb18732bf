"""Deletion and insertion: the scores of images that are covered by hand, in the order of the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import picture, small_cnn
from support_evaluation import Counting, bump, regions
from support_networks import open_onnx
from torch import nn

import vizcnn
from vizcnn.errors import DegenerateResult, ParameterError, ShapeError, VizcnnError
from vizcnn.evaluation import delete, insert
from vizcnn.inputs.blur import gaussian_blur

SIZE = (26, 40)
IMAGE = picture(SIZE)
VALUES = np.random.default_rng(0).standard_normal(SIZE)


def make_model(network: Any = None) -> vizcnn.Model:
    return vizcnn.Model(network or small_cnn(), size=SIZE, labels=[*"abcde"], name="net")


@torch.no_grad()
def score_by_hand(order: list[tuple[int, int]], counts: list[int], *, inserted: bool) -> list[float]:
    """The score of class c when the first cells of the order, of 8 x 8, show the other image."""
    ys, xs = (np.round(np.linspace(0, side, 9)).astype(int) for side in SIZE)
    blurred = gaussian_blur(IMAGE, 2.5, 8)
    under, over = (blurred, IMAGE) if inserted else (IMAGE, blurred)
    found = []
    for count in counts:
        own = under.clone()
        for i, j in order[:count]:
            part = slice(ys[i], ys[i + 1]), slice(xs[j], xs[j + 1])
            own[:, :, *part] = over[:, :, *part]
        found.append(float(small_cnn().eval()(own)[0, 2]))
    return found


@pytest.mark.parametrize("make", [delete, insert])
def test_the_line_of_a_map_is_that_of_images_covered_by_hand(make: Any) -> None:
    ys, xs = (np.round(np.linspace(0, side, 9)).astype(int) for side in SIZE)
    means = {(i, j): VALUES[ys[i] : ys[i + 1], xs[j] : xs[j + 1]].mean() for i in range(8) for j in range(8)}
    order = sorted(means, key=lambda cell: -means[cell])
    found = make(make_model(), IMAGE, VALUES, "c", progress=False)
    counts = [0, 4, 20, 44, 64]
    right = score_by_hand(order, counts, inserted=make is insert)
    np.testing.assert_allclose(found.lines[0, [0, 1, 5, 11, 16]], right, atol=1e-5)
    np.testing.assert_allclose(found.x, 100 * np.arange(17) / 16)
    assert found.names == ("the map", "random orders", "centre first")
    assert (found.x_unit, found.y_name) == ("%", "logit")
    assert np.ptp(found.lines[:, 0]) == np.ptp(found.lines[:, -1]) == 0  # nothing, and all of it
    assert found.provenance.targets == (("c",),)
    assert found.provenance.images[0][0] == "tensor"


def test_a_map_of_what_is_needed_makes_the_score_fall_first() -> None:
    model, image = regions(), torch.ones(3, 48, 48)
    maps = {"right": bump((48, 48), 0), "wrong": bump((48, 48), 3) - bump((48, 48), 0)}
    options: dict[str, Any] = {"fill": "black", "progress": False}
    deleted, inserted = (make(model, image, maps, "upper left", **options) for make in (delete, insert))
    assert deleted.names == ("right", "wrong", "random orders", "centre first")
    right, wrong, random, centre = deleted.areas
    assert right < min(random, centre)
    assert wrong > max(random, centre)
    right, wrong, random, centre = inserted.areas
    assert right > max(random, centre)
    assert wrong < min(random, centre)
    assert deleted.findings[0].startswith("right: the area is smaller than that of 8 of 8 random orders, and smaller")
    assert "wrong: the area is larger than that of 0 of 8 random orders" in inserted.findings[1]
    assert deleted.lines[0, -1] == pytest.approx(0, abs=1e-6)


def test_runs_are_those_that_are_announced_and_seeds_repeat_them() -> None:
    counting = Counting(small_cnn())
    one = delete(make_model(counting), IMAGE, VALUES, "c", steps=5, orders=3, progress=False)
    altered = (1 + 3 + 1) * (5 - 1) + 2
    assert altered <= counting.images <= altered + 5
    same, other = (delete(make_model(), IMAGE, VALUES, "c", steps=5, orders=3, seed=s, progress=False) for s in (0, 1))
    np.testing.assert_allclose(one.lines, same.lines, atol=1e-6)
    np.testing.assert_array_equal(same.lines[0], other.lines[0])
    assert not np.array_equal(same.lines[1], other.lines[1])


def test_equal_cells_are_taken_in_random_order() -> None:
    """Else a map with large even parts would be covered from the upper left."""
    values = np.zeros(SIZE)
    values[-1, -1] = 1
    one, other = (delete(make_model(), IMAGE, values, "c", seed=s, progress=False).lines[0] for s in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("size", [(5, 7), (1, 9)])
def test_small_images_have_fewer_cells(size: tuple[int, int]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 3))
    model = vizcnn.Model(network, size=size, channels=1)
    image = picture(size, 1)
    found = insert(model, image, np.random.default_rng(0).random(size), 1, steps=100, progress=False)
    assert found.lines.shape == (3, size[0] * min(8, size[1]) + 1)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (ParameterError, {"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        (ParameterError, {"grid": 1}, "grid must be"),
        (ParameterError, {"orders": 1.5}, "orders must be"),
        (ParameterError, {"seed": -1}, "delete: seed must be a whole number"),
        (ParameterError, {"fill": "x"}, "delete: fill must be"),
        (ParameterError, {"target": [0, 1]}, "a curve is of one target, got 2"),
        (ParameterError, {"maps": {}}, "at least one"),
        (ShapeError, {"maps": np.zeros((3, *SIZE))}, "the sum over channels"),
        (DegenerateResult, {"maps": {"a": np.zeros(SIZE)}}, "map 'a': the map is even all over"),
    ],
)
def test_what_makes_no_curve_is_refused(kind: type[VizcnnError], given: dict[str, Any], said: str) -> None:
    with pytest.raises(kind, match=said):
        delete(make_model(), IMAGE, **{"maps": VALUES, "target": 0, "progress": False, **given})


def test_one_step_covers_all_at_once() -> None:
    found = delete(make_model(), IMAGE, VALUES, 0, steps=1, progress=False)
    assert found.x.tolist() == [0, 100]
    assert (found.lines == found.lines[0]).all()


def test_a_heatmap_is_followed_for_what_it_explains() -> None:
    model = make_model()
    predicted = model(IMAGE)[0].argmax()
    other = "abcde"[(int(predicted) + 1) % 5]
    result = vizcnn.Saliency()(model, IMAGE, other, progress=False)
    found = insert(model, IMAGE, result, progress=False)
    assert found.title.startswith(f"{other} while")
    np.testing.assert_array_equal(found.lines, insert(model, IMAGE, result.values[0, 0], other, progress=False).lines)
    for maps in (result, {"ours": result}):
        with pytest.raises(ParameterError, match="the Heatmap explains"):
            insert(model, IMAGE, maps, "abcde"[int(predicted)], progress=False)


def test_a_target_that_nothing_changes_has_no_curve() -> None:
    with pytest.raises(DegenerateResult, match="no order is better than another"):
        delete(regions(), picture((48, 48)), bump((48, 48), 0), "same", progress=False)


@pytest.mark.filterwarnings("ignore:small.onnx answers for one image, but not for several")
@pytest.mark.parametrize("images_at_once", ["N", 1])
def test_a_real_session_of_onnxruntime_has_the_curves_of_the_same_network(
    tmp_path: Path, images_at_once: str | int
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    conv, dense = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)
    session = open_onnx(tmp_path / "small.onnx", conv, dense, images_at_once)
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense)
    own = vizcnn.Model(lambda x: session.run(None, {"input": x})[0], name="small.onnx", size=32)
    image, values = picture((32, 32)), np.random.default_rng(0).random((32, 32))
    for make in (delete, insert):
        right = make(vizcnn.Model(network, size=32), image, values, 3, progress=False)
        found = make(own, image, values, 3, progress=False)
        np.testing.assert_allclose(found.lines, right.lines, atol=1e-4)
    trust = vizcnn.evaluate(own, image, values, 3, progress=False)
    right_trust = vizcnn.evaluate(vizcnn.Model(network, size=32), image, values, 3, progress=False)
    assert trust.correlation == pytest.approx(right_trust.correlation, abs=0.02)


def test_curves_are_saved_and_open_again(tmp_path: Path) -> None:
    made = delete(make_model(), IMAGE, VALUES, "c", steps=4, orders=2, progress=False)
    opened = vizcnn.load_result(made.save(tmp_path / "curve.json"))
    assert opened.describe() == made.describe()
    assert opened.provenance == made.provenance
