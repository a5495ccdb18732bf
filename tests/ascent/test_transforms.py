"""Movements of a picture, read off pictures of its own coordinates."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import noise
from torch import Tensor

from vizcnn.ascent import Transforms
from vizcnn.ascent.rng import Rng

Array = npt.NDArray[np.float64]
DOUBLE = torch.empty(0, dtype=torch.float64)
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
