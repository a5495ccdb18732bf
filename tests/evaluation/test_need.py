"""Need and null maps: the numbers of a slow re-implementation, cell by cell and covering by covering."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import spearmanr

from vizcnn.evaluation import Coverings, judge_map, make_nulls, measure_need
from vizcnn.evaluation.cells import compare, enlarge_cells, enlarge_map, split, sum_cells
from vizcnn.evaluation.coverings import choose_coverings
from vizcnn.evaluation.nulls import compute_percentile, make_middle

Maps = npt.NDArray[np.float64]

SIZES = [(12, 12), (13, 31), (6, 6), (24, 7)]


def edges(length: int, parts: int) -> list[int]:
    """Where so many parts end that are as even as they can be: the nearest px, and the even one of two."""
    return [round(i * length / parts) for i in range(parts + 1)]


def sum_slowly(values: Maps, grid: tuple[int, int]) -> Maps:
    ys, xs = edges(values.shape[0], grid[0]), edges(values.shape[1], grid[1])
    cells = np.zeros(grid)
    for i, j in product(range(grid[0]), range(grid[1])):
        for y, x in product(range(ys[i], ys[i + 1]), range(xs[j], xs[j + 1])):
            cells[i, j] += values[y, x]
    return cells


def need_slowly(values: Maps, coverings: Coverings, target: int) -> float:
    cells = sum_slowly(values, coverings.grid)
    inside = [sum(cells[i, j] for i, j in zip(*np.nonzero(each), strict=True)) for each in coverings.covered]
    drops, parts = coverings.drops[:, target], (slice(coverings.alone), slice(coverings.alone, None))
    return sum(float(spearmanr(inside[part], drops[part]).statistic) for part in parts) / 2


def make_coverings(grid: tuple[int, int] = (6, 6), halves: int = 64, targets: int = 2, seed: int = 0) -> Coverings:
    """Coverings of which the drops are made up: some of them equal."""
    covered = choose_coverings(grid, halves, seed)
    drops = np.random.default_rng(seed).integers(-20, 20, (len(covered), targets)).astype(np.float64)
    return Coverings(covered, drops, np.zeros(targets), len(covered) + 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [(6, 6), (5, 6), (2, 3)])
def test_need_is_that_of_the_slow_formula(size: tuple[int, int], grid: tuple[int, int]) -> None:
    coverings, rng = make_coverings(grid), np.random.default_rng(1)
    maps = np.stack([rng.standard_normal(size), rng.integers(0, 3, size), np.arange(size[0] * size[1]).reshape(size)])
    for target in range(2):
        right = [need_slowly(one, coverings, target) for one in maps]
        np.testing.assert_allclose(measure_need(maps, coverings, target), right, atol=1e-12)


def test_a_map_of_the_drops_themselves_has_need_one() -> None:
    """Where halves lose the sum of what their cells lose alone, and the other way round minus one."""
    rng = np.random.default_rng(0)
    covered, losses = choose_coverings((6, 6), 64, 0), rng.standard_normal(36)
    drops = covered.reshape(100, 36) @ losses
    coverings = Coverings(covered, drops[:, None], np.zeros(1), 101)
    values = losses.reshape(6, 6).repeat(4, 0).repeat(5, 1)
    np.testing.assert_allclose(measure_need(np.stack([values, -values]), coverings), [1, -1])
    assert judge_map(values, coverings).need == 100
    assert judge_map(-values, coverings).need == 0


def nulls_slowly(values: Maps, seed: int) -> list[Maps]:
    """The null maps by their definitions: blobs px by px, moves index by index, Fourier transforms as matrices."""
    height, width = values.shape
    rng, found = np.random.default_rng(seed), []
    for _ in range(10):
        centre = [(0.5 + 0.1 * z) * side for z, side in zip(rng.standard_normal(2), (height, width), strict=True)]
        spread, blob = rng.uniform(0.12, 0.35) * min(height, width), np.zeros((height, width))
        for y, x in product(range(height), range(width)):
            blob[y, x] = np.exp(-((y + 0.5 - centre[0]) ** 2 + (x + 0.5 - centre[1]) ** 2) / 2 / spread**2)
        found.append(blob)
    for _ in range(33):
        down, right = int(rng.integers(height)), int(rng.integers(width))
        moved = np.zeros((height, width))
        for y, x in product(range(height), range(width)):
            moved[(y + down) % height, (x + right) % width] = values[y, x]
        moved = np.flipud(moved) if rng.choice([1, -1]) < 0 else moved
        moved = np.fliplr(moved) if rng.choice([1, -1]) < 0 else moved
        found.append(moved.T if height == width and rng.random() < 0.5 else moved)
    forth = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (height, width)]
    spectrum = np.abs(forth[0] @ (values - values.mean()) @ forth[1])
    for _ in range(57):
        noise = forth[0] @ rng.standard_normal((height, width)) @ forth[1]
        waves = (forth[0].conj() @ (spectrum * noise / np.abs(noise)) @ forth[1].conj()).real
        field = np.zeros(height * width)
        for place, value in zip(np.argsort(waves.ravel()), sorted(values.ravel()), strict=True):
            field[place] = value
        found.append(field.reshape(height, width))
    return found


@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_null_maps_are_those_of_the_slow_definition(size: tuple[int, int]) -> None:
    values = np.random.default_rng(5).standard_normal(size)
    np.testing.assert_allclose(make_nulls(values, seed=3), nulls_slowly(values, 3), atol=1e-12)


def test_null_maps_know_nothing_and_look_alike() -> None:
    values = np.exp(-((np.mgrid[:24, :24] - 5.0) ** 2).sum(0) / 20)
    nulls = make_nulls(values, seed=0)
    assert nulls.shape == (100, 24, 24)
    np.testing.assert_allclose(np.sort(nulls[10:].reshape(90, -1)), np.sort(values, axis=None)[None].repeat(90, 0))
    assert abs(np.mean([compare(values, one) for one in nulls[10:]])) < 0.15
    np.testing.assert_array_equal(nulls, make_nulls(values, seed=0))
    assert not np.array_equal(nulls, make_nulls(values, seed=1))


def test_nine_tenths_are_ninety_and_no_less() -> None:
    for below in range(101):
        nulls = np.where(np.arange(100) < below, 0.0, 2.0)
        assert compute_percentile(1.0, nulls) == below
        nulls[:7] = 1.0  # ties
        expected = (nulls < 1).sum() + 3.5
        assert compute_percentile(1.0, nulls) == expected


@pytest.mark.parametrize(("floor", "unit"), [(1, 0.1), (3, 0.1), (7, 0.1), (7, 1e-30)])
def test_cells_that_hold_the_same_share_a_rank(floor: int, unit: float) -> None:
    """A marked part on a floor, as fractions and as whole numbers, of which all sums are exact."""
    covered = choose_coverings((6, 6), 64, 0)
    coverings = Coverings(covered, np.random.default_rng(0).standard_normal((100, 1)), np.zeros(1), 101)
    marked = np.full((64, 64), floor, float)
    marked[30:44, 20:40] = 10
    whole, found = judge_map(marked, coverings), judge_map(marked * unit, coverings)
    assert found.correlation == pytest.approx(whole.correlation, abs=1e-12)
    other = np.full((64, 64), floor, float)
    other[5:9, 50:60] = 10
    assert compare(marked * unit, other * unit) == pytest.approx(compare(marked, other), abs=1e-12)


def test_ties_count_half() -> None:
    assert compute_percentile(1.0, np.array([0.0, 1.0, 1.0, 2.0])) == 50
    assert compute_percentile(3.0, np.arange(3.0)) == 100


@pytest.mark.parametrize("size", SIZES)
def test_likeness_is_the_rank_correlation_over_cells(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal(size), rng.integers(0, 2, (30, 25)).astype(float)
    grid = (min(12, size[0]), min(12, size[1]))
    means = [sum_slowly(one, grid) / sum_slowly(np.ones_like(one), grid) for one in (a, b)]
    right = spearmanr(means[0].ravel(), means[1].ravel()).statistic
    assert compare(a, b) == pytest.approx(right, abs=1e-12)
    assert compare(a, 2 * a + 3) == pytest.approx(1, abs=1e-9)
    assert compare(a, np.ones_like(a)) == 0


def test_maps_with_a_floor_are_not_alike_for_the_sizes_of_cells() -> None:
    """64 px make 12 cells of 5 or 6 px: what lies in a cell is mostly floor times size, and no likeness."""
    pairs = np.random.default_rng(0).uniform(1, 2, (20, 2, 64, 64))
    assert abs(np.mean([compare(*pair) for pair in pairs])) < 0.05


def test_noise_on_a_floor_finds_what_is_needed_no_better_than_null_maps() -> None:
    """Larger cells lose more and hold more of a map with a floor; its null maps must know the cells' sizes too."""
    covered, size = choose_coverings((6, 6), 64, 0), (64, 64)
    areas = sum_slowly(np.ones(size), (6, 6))
    drops = covered.reshape(100, 36) @ areas.ravel()
    rng, needs = np.random.default_rng(0), []
    for seed in range(30):
        noisy = drops + 10 * rng.standard_normal(100)
        coverings = Coverings(covered, noisy[:, None], np.zeros(1), 101)
        needs.append(judge_map(rng.uniform(1, 2, size), coverings, seed=seed).need)
    assert 40 < np.median(needs) < 75  # 98 with null maps that do not
    assert np.mean(np.array(needs) >= 90) < 0.4  # 0.99


@pytest.mark.parametrize("size", SIZES)
def test_cells_share_out_the_image(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).standard_normal(size)
    np.testing.assert_allclose(sum_cells(values, (6, 6)), sum_slowly(values, (6, 6)), atol=1e-12)
    masks = enlarge_cells(np.eye(36, dtype=bool).reshape(36, 6, 6), size)
    np.testing.assert_array_equal(masks.sum(0), np.ones(size))  # each px in one cell
    np.testing.assert_allclose((masks * values).sum((1, 2)), sum_cells(values, (6, 6)).ravel(), atol=1e-12)
    assert split(7, 6).tolist() == edges(7, 6)


def test_a_coarse_map_is_shared_out_among_cells_by_area() -> None:
    """Of 7 x 7 values that are all the same, a cell of 6 x 6 must not get twice what another gets."""
    fine = enlarge_map(np.arange(49.0).reshape(7, 7), (224, 224))
    np.testing.assert_array_equal(fine, np.arange(49.0).reshape(7, 7).repeat(32, 0).repeat(32, 1))
    even = sum_cells(enlarge_map(np.ones((7, 7)), (84, 84)), (6, 6))
    np.testing.assert_array_equal(even, np.full((6, 6), 14 * 14))
    np.testing.assert_array_equal(enlarge_map(fine, (10, 300))[:, ::4][:, :5], fine[:, [0, 2, 5, 8, 11]])


def test_a_blob_in_the_middle_is_in_the_middle() -> None:
    for size in SIZES:
        blob = make_middle(size)
        np.testing.assert_allclose(blob, blob[::-1, ::-1])
        assert blob.max() == blob[size[0] // 2, size[1] // 2]
