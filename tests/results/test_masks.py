"""Masks: a channel's map, enlarged and cut at a level, compared with torch in float64 and with a flood fill by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vizcnn.geometry import Box
from vizcnn.results import make_mask
from vizcnn.results.masks import enlarge

SIZES = [
    ((7, 7), (224, 224)),
    ((3, 5), (31, 64)),
    ((1, 4), (9, 10)),
    ((4, 1), (17, 3)),
    ((6, 6), (6, 6)),
    ((9, 8), (5, 5)),
]


def map_of(shape: tuple[int, int], seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_a_map_is_enlarged_as_torch_does_it_without_aligned_corners(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    values = map_of(shape)
    there = F.interpolate(torch.from_numpy(values).double()[None, None], size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(enlarge(values, size), there[0, 0], atol=1e-12)


def fill_from(large: torch.Tensor, level: float) -> Box | None:
    """The box around the px above a level that can be reached from the highest, step by step, corners too."""
    height, width = large.shape
    y, x = divmod(int(large.argmax()), width)
    if not large[y, x] > level:
        return None
    seen, waiting = {(y, x)}, [(y, x)]
    while waiting:
        y, x = waiting.pop()
        for there in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
            inside = 0 <= there[0] < height and 0 <= there[1] < width
            if inside and there not in seen and large[there] > level:
                seen.add(there)
                waiting.append(there)
    rows, columns = [y for y, _ in seen], [x for _, x in seen]
    return Box(min(rows), min(columns), max(rows) + 1, max(columns) + 1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("shape", "size"), SIZES[:5])
def test_the_mask_is_what_exceeds_the_level_and_its_box_the_part_around_the_highest_place(
    shape: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    values, mean = map_of(shape, seed), 0.1
    large = F.interpolate(torch.from_numpy(values).double()[None, None], size, mode="bilinear", align_corners=False)[
        0, 0
    ]
    level = (mean + float(values.max())) / 2
    expected = fill_from(large, level) if values.max() > mean else None
    mask = make_mask(values, mean, size, Box(0, 0, *size))
    assert (mask and mask.box) == expected
    if mask:
        assert mask.level == pytest.approx(level)
        np.testing.assert_array_equal(mask.cover(), large > level)
        np.testing.assert_array_equal(mask.activations, values)


def test_a_channel_that_is_scaled_and_shifted_has_the_same_mask() -> None:
    values = map_of((5, 6))
    one = make_mask(values, 0.25, (40, 60), Box(0, 0, 40, 60))
    other = make_mask(values * 4 - 8, 0.25 * 4 - 8, (40, 60), Box(0, 0, 40, 60))
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.cover(), other.cover())


def test_a_mask_lies_on_the_part_of_the_photograph_that_the_network_sees() -> None:
    values = np.zeros((4, 4), np.float32)
    values[1, 2] = 1
    mask = make_mask(values, 0, (8, 8), Box(10, 100, 90, 180))  # 10 px of the photograph for each of the input
    assert mask is not None
    assert mask.box == Box(30, 140, 50, 160)


def test_an_image_with_less_than_the_mean_has_no_mask() -> None:
    assert make_mask(np.full((3, 3), 0.5, np.float32), 0.5, (9, 9), Box(0, 0, 9, 9)) is None
    assert make_mask(map_of((3, 3)), 9, (9, 9), Box(0, 0, 9, 9)) is None


def test_a_response_smaller_than_a_px_has_no_mask() -> None:
    values = np.zeros((9, 9), np.float32)
    values[4, 3] = 1
    assert make_mask(values, 0, (2, 2), Box(0, 0, 2, 2)) is None
