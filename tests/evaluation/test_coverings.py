"""Coverings: what is covered, what that costs, and how often the network runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from support import picture, small_cnn
from support_evaluation import Counting, cover
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult
from vizcnn.evaluation import judge_map, measure_need
from vizcnn.evaluation.cells import enlarge_cells
from vizcnn.evaluation.coverings import choose_coverings
from vizcnn.inputs.blur import gaussian_blur

SIZE = (25, 40)
Options = dict[str, Any]


def make_model(network: Any = None, size: tuple[int, int] = SIZE, channels: int = 3) -> vizcnn.Model:
    contract: Options = {"mean": (0.4,) * channels, "std": (0.3,) * channels, "labels": [*"abcde"]}
    return vizcnn.Model(network or small_cnn(channels), size=size, channels=channels, name="net", **contract)


def test_each_cell_is_covered_alone_and_then_halves_with_what_they_leave() -> None:
    covered = choose_coverings((6, 6), 64, 0).reshape(100, 36)
    np.testing.assert_array_equal(covered[:36], np.eye(36, dtype=bool))
    assert (covered[36:].sum(1) == 18).all()
    np.testing.assert_array_equal(covered[36::2], ~covered[37::2])
    assert len({row.tobytes() for row in covered}) == 100
    np.testing.assert_array_equal(choose_coverings((6, 6), 64, 0), choose_coverings((6, 6), 64, 0))
    assert not np.array_equal(choose_coverings((6, 6), 64, 0), choose_coverings((6, 6), 64, 1))


def test_cells_alone_cost_what_captum_says() -> None:
    image, model = picture(SIZE), make_model()
    found = cover(model, image[0], ["c"])
    labels = (enlarge_cells(np.eye(36, dtype=bool).reshape(36, 6, 6), SIZE) * np.arange(36)[:, None, None]).sum(0)
    mask = torch.from_numpy(labels)[None, None].expand(1, 3, *SIZE)
    baseline = gaussian_blur(image, 2.5, 8)  # sigma: half of a fifth of the shorter side
    costs = FeatureAblation(model).attribute(image, baselines=baseline, target=2, feature_mask=mask)  # (1, 3, H, W)
    for cell in range(36):
        assert found.drops[cell, 0] == pytest.approx(float(costs[0, 0][mask[0, 0] == cell][0]), abs=1e-5)


@torch.no_grad()
def test_halves_cost_what_images_covered_by_hand_lose() -> None:
    image, model = picture(SIZE), make_model()
    found = cover(model, image[0], ["c", "p(a)"], fill="black", seed=3)
    ys, xs = (np.round(np.linspace(0, side, 7)).astype(int) for side in SIZE)
    clean = model(image)
    for k in (36, 37, 70, 99):
        own = image.clone()
        for i, j in zip(*np.nonzero(found.covered[k]), strict=True):
            own[:, :, ys[i] : ys[i + 1], xs[j] : xs[j + 1]] = 0
        scores = model(own)
        right = [clean[0, 2] - scores[0, 2], clean.softmax(1)[0, 0] - scores.softmax(1)[0, 0]]
        np.testing.assert_allclose(found.drops[k], right, atol=1e-5)
    assert found.grid == (6, 6)
    assert found.alone == 36


@pytest.mark.parametrize("targets", [["a"], ["a", "b", "c", "d"]])
def test_a_hundred_runs_and_one_serve_all_targets_and_maps(targets: list[str]) -> None:
    network = Counting(small_cnn())
    model, image = make_model(network), picture(SIZE)[0]
    with model.borrowed(), torch.no_grad():
        wanted = tuple(vizcnn.target(one).resolved(model) for one in targets)
        scores = model(image[None])[0, : len(targets)].double().numpy()
        found = vizcnn.evaluation.cover_image(model, image, wanted, scores, layout=torch.contiguous_format, shown=False)
        assert network.images == found.runs == 101
        rng = np.random.default_rng(0)
        for target in range(len(targets)):  # a hundred null maps each
            judge_map(rng.standard_normal(SIZE), found, target, contrast=rng.standard_normal(SIZE))
        measure_need(rng.standard_normal((100, *SIZE)), found)
    assert network.images == 101


ODD: dict[str, tuple[tuple[int, int], int, Options, torch.dtype]] = {
    "of 5 x 7 px": ((5, 7), 3, {}, torch.float32),
    "of one channel": ((17, 30), 1, {}, torch.float32),
    "of one row": ((2, 9), 4, {"fill": "model"}, torch.float32),
    "in double precision": ((16, 16), 3, {"fill": "mean"}, torch.float64),
    "in half precision": ((16, 16), 3, {}, torch.float16),
    "two at a time": ((16, 16), 3, {"batch": 2, "fill": "#123456"}, torch.float32),
}


@pytest.mark.parametrize(("size", "channels", "options", "dtype"), ODD.values(), ids=ODD.keys())
def test_odd_inputs_are_covered_too(size: tuple[int, int], channels: int, options: Options, dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(5))
    torch.manual_seed(0)
    network(torch.rand(1, channels, *size))
    model, image = make_model(network.to(dtype), size, channels), picture(size, channels)[0].to(dtype)
    found = cover(model, image, ["b"], **options)
    assert found.grid == (min(6, size[0]), min(6, size[1]))
    assert found.drops.shape == (found.alone + 64, 1)
    assert found.drops.dtype == np.float64
    wide = make_model(network.double(), size, channels)
    near = cover(wide, image.double(), ["b"], **options)
    np.testing.assert_allclose(found.drops, near.drops, atol=0.02 if dtype == torch.float16 else 1e-5)
    assert 0 <= judge_map(np.random.default_rng(0).standard_normal(size), found).need <= 100


class OneAtATime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small_cnn()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x).view(1, -1)
        return out


@pytest.mark.filterwarnings("ignore:net answers for one image")
def test_networks_that_take_one_image_and_black_boxes_lose_the_same() -> None:
    image, plain = picture(SIZE)[0], small_cnn().eval()
    right = cover(make_model(), image, ["d"])
    for network in (OneAtATime(), lambda x: plain(torch.from_numpy(x)).detach().numpy()):
        found = cover(make_model(network), image, ["d"])
        np.testing.assert_allclose(found.drops, right.drops, atol=1e-5)


class Deaf(nn.Module):
    """One class sees rounding alone, one nothing, one all of the image."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([1000 + 1e-3 * mean, torch.ones_like(mean), mean], 1)  # (N, 3)


@pytest.mark.filterwarnings("error::vizcnn.errors.VizcnnWarning")
def test_cells_of_large_images_are_computed_incrementally_with_the_same_numbers() -> None:
    """And where the network cannot be followed, nobody hears of it."""
    size = (130, 150)
    image, plain = picture(size)[0], small_cnn().eval()
    right = cover(make_model(lambda x: plain(torch.from_numpy(x)).detach().numpy(), size), image, ["b", "d"])
    network = Counting(small_cnn())
    found = cover(make_model(network, size), image, ["b", "d"])
    np.testing.assert_allclose(found.drops, right.drops, atol=1e-5)
    assert found.runs == right.runs == 101
    assert network.images < 90


def test_a_target_that_nothing_changes_by_more_than_rounding_is_judged_by_nothing() -> None:
    model = vizcnn.Model(Deaf(), size=SIZE, labels=["rounding", "nothing", "all"])
    found = cover(model, picture(SIZE)[0], ["rounding", "nothing", "all"], fill="black")
    assert not found.drops[:, :2].any()
    assert found.drops[:, 2].all()
    values = np.random.default_rng(0).standard_normal(SIZE)
    for target in (0, 1):
        with pytest.raises(
            DegenerateResult, match=r"by no more than rounding: .* Take another target, or another cover"
        ):
            judge_map(values, found, target)
    assert judge_map(values, found, 2).runs == 101
