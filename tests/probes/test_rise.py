from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, ParameterError
from vizcnn.occlusion import spearman
from vizcnn.probes.rise import Masks, _Sums, _to_maps

IMAGES = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
Array = np.ndarray[Any, np.dtype[np.float64]]


def model(network: nn.Module | None = None, **contract: Any) -> vizcnn.Model:
    contract = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2), **contract}
    return vizcnn.Model(network or small_cnn(), size=(16, 20), **contract)


def enlarged(grid: Array, size: tuple[int, int]) -> Array:
    """Bilinear, between the middles of cells; beyond the outer ones their values go on."""
    out = np.empty(size)
    for y, x in np.ndindex(size):
        v, u = ((p + 0.5) * cells / length - 0.5 for p, cells, length in zip((y, x), grid.shape, size, strict=True))
        v, u = (float(np.clip(at, 0, cells - 1)) for at, cells in zip((v, u), grid.shape, strict=True))
        top, left = int(v), int(u)
        bottom, right = min(top + 1, grid.shape[0] - 1), min(left + 1, grid.shape[1] - 1)
        upper = (1 - u + left) * grid[top, left] + (u - left) * grid[top, right]
        lower = (1 - u + left) * grid[bottom, left] + (u - left) * grid[bottom, right]
        out[y, x] = (1 - v + top) * upper + (v - top) * lower
    return out


def slow_masks(masks: Masks, count: int) -> Array:
    """As the paper makes them: h x w cells enlarged to (h + 1) x (w + 1), and as much as the image cut out."""
    made = []
    for grid, (y, x) in zip(masks.grids[:count].double().numpy(), masks.corners[:count].tolist(), strict=True):
        height, width = ((cells + 1) * side for cells, side in zip(grid.shape, masks.cell, strict=True))
        large = enlarged(grid, (height, width))
        made.append(large[y : y + masks.size[0], x : x + masks.size[1]])
    return np.array(made)


def test_masks_are_those_of_the_paper() -> None:
    masks = Masks(600, 4, 0.3, (16, 20), seed=5)
    made = masks.make(np.arange(600)).double().numpy()
    assert made.shape == (600, 16, 20)
    np.testing.assert_allclose(made[:40], slow_masks(Masks(600, 4, 0.3, (16, 20), seed=5), 40), atol=1e-6)
    assert masks.cell == (4, 5)
    assert set(masks.grids.unique().tolist()) == {0, 1}
    assert {tuple(corner) for corner in masks.corners.tolist()} == set(np.ndindex(4, 5))  # every shift by up to a cell
    standard_error = 0.5 / np.sqrt(600)
    assert np.abs(made.mean(0) - 0.3).max() < 5 * standard_error  # also at the border: E[M] is the same everywhere


@pytest.mark.parametrize("target", [0, "p(3)"])
def test_the_papers_formula_slowly_in_float64(target: int | str) -> None:
    """S = 1 / (N E[M]) sum f_i M_i, with E[M] the mean of these masks, less the mean score."""
    found = vizcnn.Rise(masks=60, grid=3, keep=0.4, batch=7)(model(labels=list("01234")), IMAGES, target, seed=2)
    masks, network = slow_masks(Masks(60, 3, 0.4, (16, 20), seed=2), 60), small_cnn().double().eval()
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.2)))
    for i, image in enumerate(IMAGES.double()):
        weighted, scores = np.zeros((16, 20)), []
        for mask in masks:
            masked = mean + (image - mean) * torch.from_numpy(mask)
            with torch.no_grad():
                output = network(((masked - mean) / std)[None])[0]
            scores.append(float(output[0] if target == 0 else output.softmax(0)[3]))
            weighted += scores[-1] * mask
        expected = weighted / (len(masks) * masks.mean(0)) - np.mean(scores)
        np.testing.assert_allclose(found.values[i, 0], expected, atol=1e-4 * np.abs(expected).max())
    assert found.signed
    assert found.provenance.details["grid"] == 3


class Planted(nn.Module):
    """Looks for light in four places, which speak for and against its answer."""

    PLACES = ((2, 3, 4.0), (2, 20, 2.0), (20, 3, 1.0), (20, 20, -3.0))
    """Top, left, weight; 8 px each."""

    def forward(self, x: Tensor) -> Tensor:
        light = [w * torch.relu(x[:, :, y : y + 8, z : z + 8].mean((1, 2, 3)) - 0.2) for y, z, w in self.PLACES]
        return torch.stack(light, 1).sum(1, keepdim=True) + 100


def test_the_ranking_of_planted_patches_is_that_of_occlusion() -> None:
    image = 0.6 + 0.4 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    planted = vizcnn.Model(Planted(), size=32)
    rise = vizcnn.Rise(masks=1500, fill="black")(planted, image, 0).values[0, 0]
    occlusion = vizcnn.Occlusion(window=8, stride=2, fill="black")(planted, image, 0).values[0, 0]
    outside = np.ones((32, 32), bool)
    for y, x, _ in Planted.PLACES:
        outside[y : y + 8, x : x + 8] = False
    ranked = []
    for values in (rise, occlusion):
        patches = np.array([values[y : y + 8, x : x + 8].mean() for y, x, _ in Planted.PLACES])
        assert patches.max() > values[outside].mean() > patches.min()
        y, x = np.unravel_index(values.argmax(), values.shape)
        assert 2 <= y < 10
        assert 3 <= x < 11
        ranked.append(patches)
    assert spearman(*ranked) == 1
    assert spearman(rise.ravel(), occlusion.ravel()) > 0.7


def test_several_images_and_targets_in_one_call_equal_single_calls() -> None:
    probe = vizcnn.Rise(masks=30, grid=4)
    together = probe(model(), IMAGES, [0, "0:2"])
    assert together.values.shape == (2, 2, 16, 20)
    for i, image in enumerate(IMAGES):
        for t, target in enumerate((0, "0:2")):
            alone = probe(model(), image, target)
            np.testing.assert_allclose(together.values[i, t], alone.values[0, 0], atol=1e-5)
            assert together.findings[i][t] == alone.findings[0][0]


def test_other_seeds_give_other_masks_and_the_batch_does_not_matter() -> None:
    one, two, other = (
        vizcnn.Rise(masks=40, batch=batch)(model(), IMAGES, 1, seed=seed).values
        for batch, seed in ((3, 0), (64, 0), (64, 1))
    )
    np.testing.assert_allclose(one, two, atol=1e-5 * np.abs(one).max())
    assert np.abs(one - other).max() > 0.05 * np.abs(one).max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    single = vizcnn.Rise(masks=40)(model(), IMAGES, 1).values
    found = vizcnn.Rise(masks=40)(model(small_cnn().to(dtype)), IMAGES.to(dtype), 1).values
    near = 1e-5 if dtype == torch.float64 else 0.1
    np.testing.assert_allclose(found, single, atol=near * np.abs(single).max())


def happening(what: Callable[[int], None]) -> nn.Module:
    """A small network that tells of each run, by its number."""

    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.runs = small_cnn(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            what(self.runs)
            out: Tensor = self.inner(x)
            return out

    return Told()


def interrupt_at(n: int) -> Callable[[int], None]:
    def interrupt(run: int) -> None:
        if run == n:
            raise KeyboardInterrupt

    return interrupt


def test_ctrl_c_keeps_the_masks_that_came() -> None:
    clean_runs = 2 * 2 + 1  # each image alone and in company, and both together
    with pytest.raises(vizcnn.Interrupted) as caught:
        vizcnn.Rise(masks=40, batch=10)(model(happening(interrupt_at(clean_runs + 4 + 3))), IMAGES, 1)
    found = caught.value.result
    assert isinstance(found, vizcnn.Heatmap)
    assert found.partial
    assert found.values.shape == (2, 1, 16, 20)
    whole = vizcnn.Rise(masks=40, batch=10)(model(), IMAGES, 1).values
    np.testing.assert_allclose(found.values[0], whole[0], atol=1e-5)
    masks = Masks(40, 7, 0.5, (16, 20), seed=0).make(np.arange(20)).double()
    clean = model()
    with torch.no_grad():
        ground = torch.tensor([0.4, 0.5, 0.6])[:, None, None]
        scores = clean(ground + (IMAGES[1] - ground) * masks[:, None].float())[:, 1].double()
    expected = (scores[:, None, None] * masks).sum(0) / masks.sum(0) - scores.mean()
    np.testing.assert_allclose(found.values[1, 0], expected, atol=1e-4 * float(expected.abs().max()))


def test_ctrl_c_before_the_first_masks_is_an_ordinary_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        vizcnn.Rise(masks=40)(model(happening(interrupt_at(5))), IMAGES, 1)
    assert not isinstance(caught.value, vizcnn.Interrupted)


def test_a_target_that_no_mask_moves_is_refused() -> None:
    network = small_cnn()
    nn.init.constant_(network[0].bias, -1e3)  # type: ignore[arg-type]
    with pytest.raises(DegenerateResult, match="no mask changes the target 1:1 of tensor by more than rounding"):
        vizcnn.Rise(masks=20)(model(network), IMAGES, "1:1")


def test_of_a_single_mask_being_seen_helps_nowhere() -> None:
    sums = _Sums.begin(1, (4, 5), torch.device("cpu"))
    sums.add(torch.full((1, 4, 5), 0.5), np.array([[-2.0]]))
    (found,) = _to_maps(sums)
    assert (found.box, found.finding) == (None, "being seen helps nowhere")


def test_a_pixel_that_no_mask_shows_is_at_zero() -> None:
    found = vizcnn.Rise(masks=2, keep=0.05, grid=4)(model(), IMAGES[:1], 1, seed=1).values
    assert np.isfinite(found).all()
    assert (found == 0).any()
    assert found.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": 1}, "masks must be at least 2, got 1"),
        ({"keep": 1.0}, "keep must be at most 0.99, got 1.0"),
        ({"fill": "purpel"}, "fill must be mean, model, blur or a colour"),
        ({"grid": 0}, "grid must be at least 1, got 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"Rise: {message}"):
        vizcnn.Rise(**options)
