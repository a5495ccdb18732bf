"""The parts of gradient ascent, against slow re-implementations and answers known by construction."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.ascent import (
    RECIPES,
    Fourier,
    Maco,
    Objective,
    Outcome,
    Penalty,
    Pixels,
    Recipe,
    Repair,
    Transforms,
    compute_gram,
    optimize,
    score_pictures,
)
from vizcnn.ascent.diversity import measure_similarity
from vizcnn.ascent.matching import ActivationDistance, GramDistance
from vizcnn.ascent.rng import Rng
from vizcnn.ascent.spectrum import load_spectrum
from vizcnn.errors import NonFiniteResult, NotDifferentiable, ParameterError, TargetError
from vizcnn.models.borrowing import borrow
from vizcnn.models.layers.capture import reading
from vizcnn.models.targets import OUTPUT, Target, target

Array = npt.NDArray[np.float64]
DOUBLE = torch.empty(0, dtype=torch.float64)
SHAPES = [(1, 6, 9), (3, 7, 8), (3, 5, 5), (1, 8, 4)]
LUCID = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])  # as published
COLOURS = LUCID / np.sqrt((LUCID**2).sum(0)).max()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logits_of(pictures: Tensor) -> Array:
    """Independent colours (N, C, H, W) from before the sigmoid and the mixing of colours."""
    mixed: Array = torch.logit(pictures).numpy()
    return np.einsum("ij,njhw->nihw", np.linalg.inv(COLOURS), mixed) if mixed.shape[1] == 3 else mixed


# --- parametrizations -------------------------------------------------------------------------------------------------


def waves(numbers: Array, height: int, width: int) -> Array:
    """One channel (H, W) as an explicit sum of cosines and sines, from numbers (H, W//2+1, 2)."""
    down, across = np.mgrid[0:height, 0:width]
    total = np.zeros((height, width))
    for k in range(height):
        for j in range(width // 2 + 1):
            signed = k if 2 * k < height else k - height
            frequency = max(math.hypot(signed / height, j / width), 1 / max(height, width))
            angle = 2 * math.pi * (k * down / height + j * across / width)
            twice = 1 if j == 0 or 2 * j == width else 2  # each wave and its conjugate
            real, imaginary = numbers[k, j] / frequency
            total += twice * (real * np.cos(angle) - imaginary * np.sin(angle))
    return total / math.sqrt(height * width) / 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decorrelated", [True, False])
def test_a_fourier_picture_is_a_sum_of_waves(shape: tuple[int, int, int], decorrelated: bool) -> None:
    channels, height, width = shape
    numbers = noise(2, channels, height, width // 2 + 1, 2)
    found = Fourier(decorrelated=decorrelated).render(numbers, shape)  # (2, C, H, W)
    plain = np.array([[waves(one.numpy(), height, width) for one in each] for each in numbers])
    mixed = np.einsum("ij,njhw->nihw", COLOURS, plain) if decorrelated and channels == 3 else plain
    np.testing.assert_allclose(found.numpy(), 1 / (1 + np.exp(-mixed)), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_maco_changes_where_waves_lie_and_not_how_strong_they_are(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    numbers = noise(2, channels, height, width // 2 + 1)
    found = np.abs(np.fft.rfft2(logits_of(Maco().render(numbers, shape))))  # (2, C, H, W//2+1)
    wanted = load_spectrum("natural", shape)[0].double().numpy()
    share = (found / wanted).reshape(2, channels, -1)[..., 1:]  # but for the mean
    np.testing.assert_allclose(share, np.broadcast_to(share[:, :1, :1], share.shape), rtol=1e-4)


def test_maco_pictures_differ_by_their_phases() -> None:
    one, other = Maco().render(noise(2, 1, 8, 5), (1, 8, 8))
    assert (one - other).abs().max() > 0.1


def test_maco_keeps_the_amplitudes_of_a_folder_of_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(30, 225, (8, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    found = np.abs(np.fft.rfft2(logits_of(Maco(str(tmp_path)).render(noise(1, 1, 8, 6), (1, 8, 10)))))
    real = pixels / 255
    wanted = np.abs(np.fft.rfft2(np.log(real / (1 - real))))
    share = (found[0, 0] / wanted).flatten()[1:]  # but for the mean
    np.testing.assert_allclose(share, np.full_like(share, share.mean()), rtol=1e-3)


def test_the_contrast_of_a_maco_picture_is_that_of_the_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(110, 150, (8, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    found = logits_of(Maco(str(tmp_path)).render(noise(1, 1, 8, 6), (1, 8, 10)))
    assert found.std() == pytest.approx(np.log(pixels / (255 - pixels)).std(), rel=0.02)


def test_an_unknown_spectrum_names_the_known_ones() -> None:
    with pytest.raises(ParameterError, match=r"natural, mnist, tiny, got 'tinny'. Did you mean 'tiny'?"):
        load_spectrum("tinny", (3, 8, 8))


@pytest.mark.parametrize("like", ["natural", "mnist", "tiny"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_spectrum_fits_every_shape(like: str, shape: tuple[int, int, int]) -> None:
    amplitudes, contrast = load_spectrum(like, shape)
    assert amplitudes.shape == (shape[0], shape[1], shape[2] // 2 + 1)
    assert amplitudes.sum() > 0
    assert contrast > 0


# --- rng --------------------------------------------------------------------------------------------------------------


def test_an_images_random_numbers_depend_on_seed_and_key_alone() -> None:
    torch.manual_seed(1)
    both = Rng(3, ["a", "b"], DOUBLE)
    torch.manual_seed(2)
    alone = Rng(3, ["b"], DOUBLE)
    for _ in range(2):
        assert torch.equal(both.normal(5)[1], alone.normal(5)[0])
    first, other, seeded = (Rng(seed, [key], DOUBLE).normal(5) for seed, key in ((3, "a"), (3, "b"), (4, "a")))
    assert not torch.equal(first, other)
    assert not torch.equal(first, seeded)


def test_uniform_numbers_lie_on_both_sides_of_zero() -> None:
    numbers = Rng(0, ["a"], DOUBLE).uniform(1000)
    assert -1 <= numbers.min() < -0.9
    assert 0.9 < numbers.max() < 1


# --- transforms -------------------------------------------------------------------------------------------------------

DRAWS = 24


def views(transforms: Transforms, pictures: Tensor, seed: int = 0) -> Tensor:
    """What the network sees of the picture (C, H, W), for many draws: (N, C, H, W)."""
    rng = Rng(seed, [f"{i}" for i in range(DRAWS)], DOUBLE)
    return transforms(pictures.expand(DRAWS, -1, -1, -1), rng)


def middle(height: int, width: int) -> tuple[slice, slice]:
    return slice(height // 3, -(height // 3)), slice(width // 3, -(width // 3))


def coordinates(height: int, width: int) -> Tensor:
    """Each pixel's distance from the centre in px: (2, H, W), across and down."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([across - (width - 1) / 2, down - (height - 1) / 2]).double()


def movements(transforms: Transforms, height: int, width: int) -> tuple[Array, Array]:
    """The affine map from what is seen to the picture, in px about the centre: (N, 2, 2) and shifts (N, 2)."""
    here = coordinates(height, width)
    ys, xs = middle(height, width)
    seen = views(transforms, here)[:, :, ys, xs].flatten(2)  # (N, 2, P)
    known = torch.cat([here[:, ys, xs].flatten(1), torch.ones(1, seen.shape[2])]).T.numpy()  # (P, 3)
    fits = [np.linalg.lstsq(known, each.T.numpy(), rcond=None)[0] for each in seen]
    for fit, each in zip(fits, seen, strict=True):
        np.testing.assert_allclose(known @ fit, each.T.numpy(), atol=1e-6)  # every movement is affine
    stacked = np.stack(fits)  # (N, 3, 2)
    return stacked[:, :2].transpose(0, 2, 1), stacked[:, 2]


def test_without_movement_the_picture_is_seen_as_it_is() -> None:
    picture = noise(3, 6, 7)
    assert torch.equal(views(Transforms(), picture)[0], picture)
    torch.testing.assert_close(views(Transforms(jitter=1e-12), picture)[0], picture)


def test_what_is_seen_is_sampled_bilinearly_from_where_the_movement_says() -> None:
    height, width = 18, 24
    picture = torch.cat([coordinates(height, width), noise(1, height, width)])  # (3, H, W)
    seen = views(Transforms(jitter=0.1, scale=0.1, rotate=15), picture).numpy()
    texture = picture[2].numpy()
    ys, xs = middle(height, width)
    for one in seen[:4]:
        for across, down, found in zip(*(part[ys, xs].ravel() for part in one), strict=True):
            x, y = across + (width - 1) / 2, down + (height - 1) / 2
            i, j = int(y), int(x)
            left = (y - i) * texture[i + 1, j] + (1 - y + i) * texture[i, j]
            right = (y - i) * texture[i + 1, j + 1] + (1 - y + i) * texture[i, j + 1]
            assert found == pytest.approx((x - j) * right + (1 - x + j) * left, abs=1e-6)


def test_jitter_moves_by_up_to_its_share_of_each_side() -> None:
    maps, shifts = movements(Transforms(jitter=0.1), 30, 60)
    np.testing.assert_allclose(maps, np.broadcast_to(np.eye(2), maps.shape), atol=1e-6)
    largest = np.abs(shifts).max(0)
    assert 0.8 * 6 < largest[0] <= 6
    assert 0.8 * 3 < largest[1] <= 3
    assert shifts.min() < 0 < shifts.max()


def test_a_jitter_of_whole_pixels_moves_the_picture_by_these() -> None:
    """The shift is read off a ramp; a texture under it must have moved by just as much."""
    _, shifts = movements(Transforms(jitter=0.1), 30, 60)
    factor = 3 / shifts[0, 0]  # a jitter so large that the first draw moves by three px across
    picture = noise(1, 30, 60)
    moved = views(Transforms(jitter=0.1 * abs(factor)), picture)[0, 0]
    down = shifts[0, 1] * abs(factor)
    i, part = math.floor(down), down - math.floor(down)
    columns = slice(10 + int(math.copysign(3, shifts[0, 0])), 50 + int(math.copysign(3, shifts[0, 0])))
    expected = (1 - part) * picture[0, 10 + i : 20 + i, columns] + part * picture[0, 11 + i : 21 + i, columns]
    torch.testing.assert_close(moved[10:20, 10:50], expected, atol=1e-6, rtol=0)


def test_rotation_keeps_right_angles_on_pictures_that_are_not_square() -> None:
    maps, shifts = movements(Transforms(rotate=20), 24, 48)
    np.testing.assert_allclose(maps.transpose(0, 2, 1) @ maps, np.broadcast_to(np.eye(2), maps.shape), atol=1e-6)
    np.testing.assert_allclose(shifts, 0, atol=1e-6)
    angles = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert 16 < np.abs(angles).max() <= 20
    assert angles.min() < 0 < angles.max()


def test_scale_enlarges_and_shrinks_by_up_to_its_share() -> None:
    maps, _ = movements(Transforms(scale=0.2), 24, 36)
    sizes = 1 / maps[:, 0, 0]
    np.testing.assert_allclose(maps, np.eye(2) / sizes[:, None, None], atol=1e-6)
    assert 0.8 <= sizes.min() < 0.85
    assert 1.15 < sizes.max() <= 1.2


def test_a_crop_lies_anywhere_inside_the_picture() -> None:
    maps, shifts = movements(Transforms(crop=0.5), 24, 36)
    kept = maps[:, 0, 0]
    assert 0.5 <= kept.min() < 0.6
    assert kept.max() <= 1
    reach = np.abs(shifts) / np.array([36, 24]) + kept[:, None] / 2
    assert reach.max() <= 0.5 + 1e-9
    assert reach.max() > 0.45


def test_every_movement_scales_with_the_picture() -> None:
    transforms = Transforms(jitter=0.05, scale=0.1, rotate=10, pad=0.05, crop=0.1)
    small, large = movements(transforms, 32, 48), movements(transforms, 64, 96)
    np.testing.assert_allclose(small[0], large[0], atol=1e-6)
    np.testing.assert_allclose(2 * small[1], large[1], atol=1e-5)
    assert np.abs(small[0] - np.eye(2)).max() > 0.05
    assert np.abs(small[1]).max() > 0.5


def test_pad_shows_grey_around_and_nothing_else_does() -> None:
    white = torch.ones(1, 32, 32, dtype=torch.float64)
    seen = views(Transforms(pad=0.25), white)[0, 0]  # the picture is 32 of 48 px, drawn at 32
    expected = torch.full((32, 32), 0.5, dtype=torch.float64)
    expected[6:26, 6:26] = 1
    inner = torch.ones(32, 32, dtype=torch.bool)
    inner[4:7], inner[-7:-4], inner[:, 4:7], inner[:, -7:-4] = False, False, False, False
    torch.testing.assert_close(seen[inner], expected[inner])
    everything_else = views(Transforms(jitter=0.3, scale=0.3, rotate=40, crop=0.3), white)
    torch.testing.assert_close(everything_else, torch.ones_like(everything_else))


def test_noise_has_the_strength_that_it_says() -> None:
    added = views(Transforms(noise=0.05), torch.full((3, 16, 16), 0.5, dtype=torch.float64)) - 0.5
    assert added.std().item() == pytest.approx(0.05, rel=0.05)
    assert abs(added.mean().item()) < 0.002


# --- regularizers -----------------------------------------------------------------------------------------------------

MEAN = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize("origin", ["black", "mean"])
@pytest.mark.parametrize(("name", "term"), [("l1", abs), ("l2", lambda x: x * x), ("alpha", lambda x: abs(2 * x) ** 6)])
def test_penalties_are_sums_over_all_pixels_and_colours(origin: str, name: str, term: Any) -> None:
    pictures = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options: dict[str, Any] = {"origin": origin, name: 0.3}
    penalty = Penalty(**options)
    for picture, found in zip(pictures, penalty(pictures, MEAN), strict=True):
        total = 0.0
        for c in range(3):
            zero = 0.0 if origin == "black" else float(MEAN[0, c])
            total += sum(0.3 * term(float(x) - zero) for x in picture[c].flatten())
        assert float(found) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_total_variation_is_the_sum_of_gradient_lengths(power: float) -> None:
    pictures = noise(2, 3, 4, 5)
    for picture, found in zip(pictures.numpy(), Penalty(tv=0.7, power=power)(pictures, MEAN), strict=True):
        total = 0.0
        for c in range(3):
            for y in range(3):
                for x in range(4):
                    here, below, beside = picture[c, y, x], picture[c, y + 1, x], picture[c, y, x + 1]
                    total += 0.7 * math.hypot(below - here, beside - here) ** power
        assert float(found) == pytest.approx(total, rel=1e-5)


def test_penalties_add_up() -> None:
    pictures = noise(2, 3, 4, 5)
    parts = [Penalty(l1=0.1), Penalty(l2=0.2), Penalty(alpha=0.3), Penalty(tv=0.4)]
    together = Penalty(l1=0.1, l2=0.2, alpha=0.3, tv=0.4)(pictures, MEAN)
    torch.testing.assert_close(together, sum((each(pictures, MEAN) for each in parts), torch.zeros(())))


@pytest.mark.parametrize("width", [0.5, 1.0, 1.7])
def test_blur_is_a_gaussian_with_the_edge_repeated(width: float) -> None:
    pictures = noise(1, 3, 7, 5)
    found = Repair(blur=width, every=1)(pictures, MEAN, torch.zeros_like(pictures), 1)
    reach = round(3 * width)
    kernel = [math.exp(-(k**2) / (2 * width**2)) for k in range(-reach, reach + 1)]
    for c, y, x in ((0, 0, 0), (1, 3, 2), (2, 6, 4), (0, 1, 3)):
        total = 0.0
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                near = pictures[0, c, min(max(y + dy, 0), 6), min(max(x + dx, 0), 4)]
                total += kernel[dy + reach] * kernel[dx + reach] * float(near)
        assert float(found[0, c, y, x]) == pytest.approx(total / sum(kernel) ** 2, rel=1e-9, abs=1e-12)


def test_blur_and_decay_happen_when_they_should() -> None:
    pictures = noise(1, 3, 7, 5)
    blurring, decaying = Repair(blur=1.0, every=3), Repair(decay=0.25)
    changed = [
        not torch.equal(blurring(pictures, MEAN, pictures, step), pictures - MEAN + MEAN) for step in range(1, 7)
    ]
    assert changed == [False, False, True, False, False, True]
    for step in (1, 2):
        torch.testing.assert_close(decaying(pictures, MEAN, pictures, step), MEAN + 0.75 * (pictures - MEAN))


@pytest.mark.parametrize("name", ["small_norm", "small_contribution"])
def test_the_pixels_that_matter_least_become_the_mean_colour(name: str) -> None:
    pictures, gradient = noise(2, 3, 6, 5), noise(2, 3, 6, 5, seed=1)
    options: dict[str, Any] = {name: 30.0}
    repair = Repair(**options)
    found = repair(pictures, MEAN, gradient, 1)
    for i in range(2):  # each picture has a bound of its own
        x = (pictures[i] - MEAN[0]).numpy()
        size = np.sqrt((x**2).sum(0)) if name == "small_norm" else np.abs((x * gradient[i].numpy()).sum(0))
        kept = size >= np.sort(size.ravel())[9]  # 30 % of 30 pixels are 9
        assert kept.sum() == 21
        expected = np.where(kept, pictures[i].numpy(), MEAN[0].expand(3, 6, 5).numpy())
        np.testing.assert_allclose(found[i].numpy(), expected, atol=1e-12)


# --- Gram matrices and likeness ---------------------------------------------------------------------------------------


def grams(maps: Array) -> Array:
    """Slowly: (N, C, C) from (N, C, P)."""
    n, c, p = maps.shape
    out = np.zeros((n, c, c))
    for i in range(n):
        for a in range(c):
            for b in range(c):
                out[i, a, b] = sum(maps[i, a, k] * maps[i, b, k] for k in range(p)) / p
    return out


def test_a_gram_matrix_holds_mean_products_of_channels() -> None:
    maps, flat = noise(2, 3, 4, 5), noise(2, 3)
    np.testing.assert_allclose(compute_gram(maps).numpy(), grams(maps.flatten(2).numpy()), rtol=1e-9)
    np.testing.assert_allclose(compute_gram(flat).numpy(), grams(flat[:, :, None].numpy()), rtol=1e-9)


def test_likeness_is_the_mean_cosine_to_the_other_copies() -> None:
    maps = noise(4, 3, 4, 5)
    objectives = [Objective(target(name), copy) for name, copy in (("a:0", 0), ("a:1", 0), ("a:0", 1), ("a:0", 2))]
    each = grams(maps.flatten(2).numpy()).reshape(4, -1)
    each /= np.linalg.norm(each, axis=1, keepdims=True)
    found = measure_similarity({"a": maps.split(1)}, [one.group for one in objectives]).tolist()
    copies = (0, 2, 3)
    for i in copies:
        assert found[i] == pytest.approx(np.mean([each[i] @ each[j] for j in copies if j != i]), rel=1e-5)
    assert found[1] == 0


# --- the ascent -------------------------------------------------------------------------------------------------------

PLAIN = Recipe("plain", Pixels(), optimiser="ascent", rate=0.1, steps=40)


def model(network: nn.Module, size: int = 8, channels: Any = 3, **more: Any) -> vizcnn.Model:
    return vizcnn.Model(network, size=size, channels=channels, **more)


def ascend(
    of: vizcnn.Model, wanted: Sequence[str | int | Target | Objective], recipe: Recipe = PLAIN, **more: Any
) -> Outcome:
    objectives = [one if isinstance(one, Objective) else Objective(target(one)) for one in wanted]
    with borrow(of, "Test"):
        return optimize(of, objectives, recipe, progress=False, **more)


def linear_filter(*weights: float) -> nn.Module:
    """A filter whose total weight for each colour is given; round the edges, so that all pixels are equal."""
    conv = nn.Conv2d(len(weights), 1, 3, padding=1, padding_mode="circular", bias=False)
    with torch.no_grad():
        for i, each in enumerate(weights):
            conv.weight[0, i] = torch.tensor([[0, -1, 0], [1, each, 1], [0, -1, 0]])
    return nn.Sequential(conv)


@pytest.mark.parametrize(("optimiser", "rate"), [("ascent", 0.1), ("adam", 0.1), ("nadam", 0.1), ("lbfgs", 8.0)])
def test_a_linear_filter_likes_each_colour_full_or_not_at_all(optimiser: Any, rate: float) -> None:
    found = ascend(model(linear_filter(1.0, -1.0, 0.5)), ["0:0"], replace(PLAIN, optimiser=optimiser, rate=rate))
    expected = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert torch.equal(found.pictures, expected)
    assert found.scores.item() == pytest.approx(1.5, rel=1e-5)
    assert found.moved.tolist() == [True]
    assert found.finished


def test_lbfgs_finds_the_lowest_point_of_a_bowl_that_is_far_longer_than_wide() -> None:
    """Where |W x - W y|^2 is least is known; plain steps would need hundreds."""
    wanted = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(-0.5, 0.5, 3).view(1, 3, 1, 1)
    far = target(lambda seen: ((seen["0"] - wanted) * scale).square().sum((1, 2, 3)), layers="0")
    recipe = replace(PLAIN, optimiser="lbfgs", rate=1.0, steps=40, keep="best")
    found = ascend(model(nn.Sequential(nn.Identity())), [Objective(far, lowered=True)], recipe)
    torch.testing.assert_close(found.pictures, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("lowered", [False, True])
def test_the_best_state_is_kept_where_a_recipe_says_so(lowered: bool) -> None:
    """Steps that are too long jump over a summit whose place is known; the penalty counts with the target."""
    sign = 1 if lowered else -1
    summit = target(lambda seen: sign * (seen["0"] - 0.6).square().sum((1, 2, 3)), layers="0")
    penalty = Penalty(l2=0.5, origin="black")
    of, start = model(nn.Sequential(nn.Identity())), torch.full((1, 3, 8, 8), 0.45)

    def heights(keep: Any) -> Array:
        recipe = replace(PLAIN, rate=0.2, penalty=penalty, keep=keep)
        each = [
            ascend(of, [Objective(summit, lowered=lowered)], replace(recipe, steps=n), start=start) for n in range(1, 9)
        ]
        penalties = [float(penalty(one.pictures, torch.zeros(1))) for one in each]
        return np.array([float(one.scores) * -sign - down for one, down in zip(each, penalties, strict=True)])

    last, best = heights("last"), heights("best")
    assert (np.diff(last) < 0).any()  # some steps lead downwards
    before = float(-(start - 0.6).square().sum() - penalty(start, torch.zeros(1)))
    np.testing.assert_allclose(best, np.maximum.accumulate([before, *last])[1:], rtol=1e-5)


def test_distances_of_a_batch_are_the_papers_formulae() -> None:
    seen, wanted = noise(3, 4, 5, 6), noise(1, 4, 5, 6, seed=1)
    found = ActivationDistance("a", wanted)({"a": seen})
    grams = GramDistance({"a": compute_gram(wanted), "b": compute_gram(2 * wanted)})({"a": seen, "b": seen})

    def share(values: Array, aim: Array) -> float:
        return float(((values - aim) ** 2).sum() / (aim**2).sum())

    def gram(maps: Array) -> Array:
        flat = maps.reshape(4, 30)
        return flat @ flat.T / 30

    for i in range(3):
        assert float(found[i]) == pytest.approx(share(seen[i].numpy(), wanted[0].numpy()), rel=1e-9)
        one = gram(seen[i].numpy())
        both = [share(one, scale * gram(wanted[0].numpy())) for scale in (1, 4)]
        assert float(grams[i]) == pytest.approx(np.mean(both), rel=1e-9)


def test_lowering_gives_the_opposite() -> None:
    found = ascend(model(linear_filter(1.0, -1.0, 0.5)), [Objective(target("0:0"), lowered=True)])
    assert torch.equal(found.pictures[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert found.scores.item() == pytest.approx(-1.0, rel=1e-5)


def test_a_class_of_a_linear_network_likes_its_positive_weights() -> None:
    fc = nn.Linear(48, 4)
    of, adam = model(nn.Sequential(nn.Flatten(), fc), 4), replace(PLAIN, optimiser="adam")
    found = ascend(of, [0, 2, target(0) - 2 * target(2)], adam)
    weights = fc.weight.detach().view(4, 3, 4, 4)
    for picture, liked in zip(found.pictures, (weights[0], weights[2], weights[0] - 2 * weights[2]), strict=True):
        assert torch.equal(picture, (liked > 0).float())


def test_sums_and_differences_of_layers_are_raised_together() -> None:
    network = nn.Sequential(linear_filter(1.0, -1.0, 0.5)[0], nn.Conv2d(1, 1, 1, bias=False))  # type: ignore[index]
    network[1].weight.data.fill_(3.0)  # type: ignore[operator]
    found = ascend(model(network), [target("0:0") - target("1:0")])  # f - 3 f
    assert torch.equal(found.pictures[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))


def test_a_direction_is_raised_as_its_own_sum() -> None:
    of = model(small_cnn().double())
    both = ascend(of, [vizcnn.direction("3", [1, 0, -2] + [0] * 5)], replace(PLAIN, parametrization=Pixels(spread=0.0)))
    parts = ascend(of, [target("3:0") - 2 * target("3:2")], replace(PLAIN, parametrization=Pixels(spread=0.0)))
    torch.testing.assert_close(both.pictures, parts.pictures, atol=1e-5, rtol=0)
    assert both.scores.item() == pytest.approx(parts.scores.item(), rel=1e-6)


def test_pixels_without_influence_fall_to_black_under_the_lectures_l1() -> None:
    network = linear_filter(1.0, 0.0, 0.0)
    with torch.no_grad():
        network[0].weight[0, 1:] = 0  # type: ignore[index]
    lecture = replace(RECIPES["lecture"], penalty=Penalty(l1=1e-3, origin="black"), rate=0.1, steps=60)
    found = ascend(model(network), ["0:0"], lecture).pictures[0]
    assert torch.equal(found[0], torch.ones(8, 8))
    assert found[1:].max() < 0.1
    without = ascend(model(network), ["0:0"], replace(lecture, penalty=Penalty())).pictures[0]
    assert without[1:].min() > 0.3


def test_l1_holds_back_what_is_worth_less_than_it_costs() -> None:
    dear = replace(PLAIN, penalty=Penalty(l1=1.0, origin="black"))  # each pixel is worth 1/64
    assert ascend(model(linear_filter(1.0, 1.0, 1.0)), ["0:0"], dear).pictures.max() < 0.11


def test_one_neuron_changes_its_receptive_field_and_nothing_else() -> None:
    of = model(small_cnn(), 16)
    short, long = (ascend(of, ["3:2@1,6"], replace(PLAIN, steps=n)).pictures for n in (1, 8))
    changed = (short != long).any(1)[0]
    field = torch.zeros(16, 16, dtype=torch.bool)
    field[:7, 9:16] = (
        True  # of one cell of a 3 x 3 convolution over pooled pairs over another: 8 x 8 px, cut at the edge
    )
    assert changed.any()
    assert not changed[~field].any()


def dead(bias: float, weight: float = 1.0) -> vizcnn.Model:
    """A unit whose ReLU is shut by its bias, beside one that is always open."""
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight[0], conv.weight[1] = weight, 1.0
        conv.bias.copy_(torch.tensor([bias, 0.0]))  # type: ignore[union-attr]
    return model(nn.Sequential(conv, nn.ReLU()))


@pytest.mark.parametrize("name", ["lecture", "mahendran", "lucid"])
def test_a_unit_that_starts_behind_a_shut_relu_opens_it(name: str) -> None:
    recipe = replace(RECIPES[name], steps=60)
    of = dead(-1.9)
    assert ascend(of, ["1:0"], replace(recipe, steps=1)).scores.item() == 0
    found = ascend(of, ["1:0"], recipe)
    assert found.scores.item() > 0.02
    assert found.moved.tolist() == [True]


def test_a_unit_that_nothing_reaches_is_known() -> None:
    found = ascend(dead(-1.0, weight=0.0), ["1:0", "1:1"])
    assert found.moved.tolist() == [False, True]
    assert found.scores[0] == 0
    assert found.scores[1] > 2.9


def test_a_unit_that_its_last_step_opens_has_responded() -> None:
    """The neighbourhood of what the network saw was flat in both steps, and yet the picture reaches something."""
    found = ascend(dead(-1.9), ["1:0"], replace(PLAIN, parametrization=Pixels(spread=0), steps=2))
    assert found.scores.item() == pytest.approx(0.2, abs=1e-4)
    assert found.moved.tolist() == [True]


@pytest.mark.parametrize(("bias", "weight", "moved"), [(-1.9, 1.0, True), (-1.0, 0.0, False)])
def test_diversity_neither_keeps_a_unit_shut_nor_hides_that_it_is_dead(bias: float, weight: float, moved: bool) -> None:
    conv = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3).view(3, 3, 1, 1))  # two channels in which the copies can differ
        conv.weight[0] = weight
        conv.bias.copy_(torch.tensor([bias, 0.0, 0.0]))  # type: ignore[union-attr]
    of = model(nn.Sequential(conv, nn.ReLU()))
    found = ascend(of, [Objective(target("1:0"), copy) for copy in range(2)], diversity=0.1)
    assert found.moved.tolist() == [moved, moved]
    assert ((found.scores > 0.1) == moved).all()


def test_the_progress_bar_shows_the_first_targets_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("tqdm.std.tqdm.set_postfix_str", lambda _bar, text, **_: said.append(text))
    ascend(dead(-9.0), ["1:1", "1:0"], replace(PLAIN, steps=24))  # the second stays shut and is redirected
    assert len(said) == 3
    assert all(text.startswith("1:1 ") and float(text.split()[1]) > 1 for text in said)


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.LeakyReLU(), nn.Hardswish(), nn.ReLU6(), nn.ELU()])
def test_networks_with_other_activations_are_optimised(activation: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 4, 3), copy.deepcopy(activation))
    start, end = (ascend(model(network), ["3:1", "3:2"], replace(PLAIN, steps=n)).scores for n in (1, 30))
    assert (end > start).all()


# --- each picture as if it were alone ---------------------------------------------------------------------------------

SPAN = [f"3:{i}" for i in range(8)]


@pytest.mark.parametrize("name", [*RECIPES, "lbfgs"])
def test_eight_channels_together_are_eight_single_runs(name: str) -> None:
    second_order = replace(PLAIN, optimiser="lbfgs", rate=1.0, keep="best")
    of, recipe = model(small_cnn().double(), 12), replace(RECIPES.get(name, second_order), steps=6)
    together = ascend(of, SPAN, recipe)
    for i, one in enumerate(SPAN):
        alone = ascend(of, [one], recipe)
        torch.testing.assert_close(alone.pictures[0], together.pictures[i], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.scores[0], together.scores[i], atol=1e-4, rtol=0)


def test_neither_order_nor_batches_nor_other_layers_change_a_picture() -> None:
    of, recipe = model(small_cnn().double(), 12), replace(RECIPES["lucid"], steps=6)
    wanted: list[str | int] = ["3:1", 2, "0:4", "3:5", 0, "energy(3)"]
    first = ascend(of, wanted, recipe, frames=2)
    backwards = ascend(of, wanted[::-1], recipe, batch=1, frames=2)
    torch.testing.assert_close(first.pictures, backwards.pictures.flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.scores, backwards.scores.flip(0), atol=1e-5, rtol=0)
    assert torch.equal(first.frames[-1], (first.pictures * 255).round().to(torch.uint8))


def test_values_are_the_targets_numbers_for_the_pictures() -> None:
    of = model(small_cnn(), 12)
    found = ascend(of, ["3:1", 2], replace(PLAIN, steps=5))
    with torch.no_grad(), reading(of, ["3", OUTPUT]) as read:
        seen = read(found.pictures)
    assert found.scores[0].item() == pytest.approx(seen["3"][0, 1].mean().item(), rel=1e-5)
    assert found.scores[1].item() == pytest.approx(seen[OUTPUT][1, 2].item(), rel=1e-5)
    assert score_pictures(of, [Objective(target(2))], found.pictures[1:]).item() == pytest.approx(
        found.scores[1].item()
    )


def test_copies_of_a_target_differ_and_diversity_makes_them_differ_more() -> None:
    of, recipe = model(small_cnn(), 12), replace(RECIPES["lucid"], steps=20)
    objectives = [Objective(target("3:1"), copy) for copy in range(3)]
    plain, diverse = (ascend(of, objectives, recipe, diversity=weight, batch=1) for weight in (0.0, 30.0))
    assert (plain.pictures[0] - plain.pictures[1]).abs().max() > 0.01

    def similarity(outcome: Outcome) -> float:
        with torch.no_grad(), reading(of, ["3"]) as read:
            outputs = {"3": read(outcome.pictures)["3"].split(1)}
        return float(measure_similarity(outputs, [one.group for one in objectives]).mean())

    assert similarity(diverse) < similarity(plain) - 0.001


def test_functions_of_one_name_are_targets_of_their_own() -> None:
    objectives = [Objective(target(lambda out, i=i: out[:, i])) for i in range(2)]  # both are called <lambda>
    plain, diverse = (ascend(model(small_cnn(), 12), objectives, diversity=weight) for weight in (0.0, 30.0))
    assert (plain.pictures[0] - plain.pictures[1]).abs().max() > 0.01
    torch.testing.assert_close(diverse.pictures, plain.pictures)


def test_frames_begin_at_the_start_and_end_at_the_picture() -> None:
    of = model(small_cnn(), 12)
    start = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = ascend(of, ["3:1"], replace(PLAIN, steps=8), frames=4, start=start)
    assert found.frames.dtype == torch.uint8
    assert torch.equal(found.frames[0], (start * 255).round().to(torch.uint8))
    assert torch.equal(found.frames[-1], (found.pictures * 255).round().to(torch.uint8))
    steps = [(a.int() - b.int()).abs().sum().item() for a, b in zip(found.frames[:-1], found.frames[1:], strict=True)]
    assert min(steps) > 0
    assert ascend(of, ["3:1"], replace(PLAIN, steps=2)).frames.shape == (0, 1, 3, 12, 12)


def test_a_start_that_is_given_is_not_changed() -> None:
    start = torch.full((1, 3, 8, 8), 0.5)
    ascend(model(small_cnn()), ["3:1"], replace(PLAIN, steps=2), start=start)
    assert (start == 0.5).all()


# --- reading ----------------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x


def test_the_network_runs_no_further_than_the_target() -> None:
    runs = []
    for steps in (3, 20):
        before, behind = Counting(), Counting()
        ascend(model(nn.Sequential(before, nn.Conv2d(3, 2, 3), behind)), ["1:0"], replace(PLAIN, steps=steps))
        runs.append((before.runs, behind.runs))
    assert runs[1][0] - runs[0][0] == 17
    assert runs[1][1] == runs[0][1]


class Twice(nn.Module):
    """One module called three times; the last result has passed through it most often."""

    def __init__(self) -> None:
        super().__init__()
        self.once = nn.Conv2d(1, 1, 1, bias=False)
        self.once.weight.data.fill_(0.5)
        self.behind = Counting()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.behind(self.once(self.once(self.once(x))))
        return out


def test_a_module_called_several_times_is_read_at_its_last_call() -> None:
    of = model(Twice(), channels=1)
    with reading(of, ["once"]) as read:
        for _ in range(3):
            assert torch.equal(read(torch.ones(1, 1, 2, 2))["once"], torch.full((1, 1, 2, 2), 0.125))
    assert of.network.behind.runs == 1  # type: ignore[union-attr]
    assert ascend(of, ["once:0"]).scores.item() == pytest.approx(0.125)


class Cautious(nn.Module):
    """Catches every exception on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.behind = nn.Conv2d(3, 2, 3), Counting()

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.conv(x)
        except Exception:
            x = x[:, :2]
        out: Tensor = self.behind(x)
        return out


def test_a_network_that_catches_exceptions_is_stopped_too() -> None:
    of = model(Cautious())
    found = ascend(of, ["conv:0"], replace(PLAIN, steps=10))
    assert found.finished
    assert of.network.behind.runs < 5  # type: ignore[union-attr,operator]


# --- what cannot be optimised -----------------------------------------------------------------------------------------


class Detaching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 2, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.conv(x).detach())
        return out


def test_a_network_without_gradients_is_refused() -> None:
    with pytest.raises(NotDifferentiable, match="detaches or rounds .* Choose an earlier layer"):
        ascend(model(Detaching()), ["end:0"])
    assert ascend(model(Detaching()), ["conv:0"]).moved.all()


def test_a_target_that_becomes_nan_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3))
    network[0].weight.data[0] = torch.nan  # type: ignore[operator]
    with pytest.raises(NonFiniteResult, match="a target became"):
        ascend(model(network), ["0:0"])


@pytest.mark.parametrize("wanted", ["3:8", "7:5", "3:0@9,0"])
def test_channels_and_places_that_do_not_exist_are_refused(wanted: str) -> None:
    with pytest.raises(TargetError, match="channels 0 to|got position"):
        ascend(model(small_cnn()), [wanted])


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((0, 2, 3))[None]  # (1, C)


def test_an_output_that_is_not_one_per_picture_is_refused() -> None:
    with pytest.raises(TargetError, match=r"is \(1, 3\) for 2 pictures; one entry for each is needed"):
        ascend(model(Mixing()), [0, 1])


def test_recipes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ParameterError, match="repairs change pixels"):
        Recipe("bad", Fourier(), repair=Repair(blur=1.0))
    with pytest.raises(ParameterError, match="steps and rate must be positive"):
        Recipe("bad", steps=0)


def test_the_four_settings_of_yosinski_are_the_published_ones() -> None:
    """Table 1: decay, blur's width, how often, percentiles of norm and contribution."""
    found = [RECIPES[f"yosinski-{i}"].repair for i in range(1, 5)]
    assert [(r.decay, r.blur, r.every, r.small_norm, r.small_contribution) for r in found] == [
        (0, 0.5, 4, 50, 0),
        (0.3, 0, 4, 20, 0),
        (0.0001, 1.0, 4, 0, 0),
        (0, 0.5, 4, 0, 90),
    ]
