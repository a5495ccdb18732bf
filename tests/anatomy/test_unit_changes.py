"""The change of units, against correlations that are computed one by one, and where it is known by construction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vizcnn.anatomy.changes import compare_means

Means = npt.NDArray[np.float16]


@pytest.fixture
def means() -> Means:
    """(40 images, 9 units)."""
    return np.random.default_rng(0).random((40, 9)).astype(np.float16)


def test_it_is_one_less_the_correlation(means: Means) -> None:
    others = (means + np.random.default_rng(1).random((40, 9))).astype(np.float16)
    found = compare_means(means, others)
    table = np.corrcoef(means.T.astype(float), others.T.astype(float))[:9, 9:]
    np.testing.assert_allclose(found.change, 1 - np.diag(table), atol=1e-6)
    np.testing.assert_array_equal(found.nearest, table.argmax(1))
    np.testing.assert_allclose(found.likeness, table.max(1), atol=1e-6)


def test_what_stays_has_not_changed_at_all_and_what_is_replaced_has(means: Means) -> None:
    others = means.copy()
    others[:, 4] = np.random.default_rng(2).random(40)
    found = compare_means(means, others)
    assert found.change.argmax() == 4
    assert found.change[4] > 0.5
    assert (np.delete(found.change, 4) == 0).all()
    assert np.delete(found.nearest, 4).tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_units_that_changed_places_are_found_at_their_new_ones(means: Means) -> None:
    order = np.array([1, 0, 2, 3, 4, 8, 6, 7, 5])
    found = compare_means(means, means[:, order])
    assert found.nearest.tolist() == np.argsort(order).tolist()
    np.testing.assert_allclose(found.likeness, 1, atol=1e-6)
    assert set(np.flatnonzero(found.change)) == {0, 1, 5, 8}


def test_a_factor_and_an_offset_do_not_count_and_the_opposite_counts_twice(means: Means) -> None:
    steps = (np.round(means * 64) / 64).astype(np.float16)  # so that half precision loses nothing
    np.testing.assert_allclose(compare_means(steps, (2 * steps + 1).astype(np.float16)).change, 0, atol=1e-6)
    np.testing.assert_allclose(compare_means(steps, -steps).change, 2, atol=1e-6)


def test_units_that_tell_no_images_apart(means: Means) -> None:
    own, others = means.copy(), means.copy()
    own[:, 0], others[:, 0] = 0, 0  # silent in both
    own[:, 1] = 0  # silent in this one
    others[:, 2] = 0.3  # the same for all in the other
    own[:, 3], others[:, 3] = 0, 0.3
    found = compare_means(own, others)
    assert found.change.tolist() == [0, 1, 1, 0, *[0] * 5]
    assert found.nearest.tolist()[:4] == [-1, -1, found.nearest[2], -1]
    assert found.nearest[2] != 2
    assert np.isnan(found.likeness[[0, 1, 3]]).all()
    silent = compare_means(own, np.zeros_like(own))
    assert (silent.nearest == -1).all()


def test_of_units_that_are_equally_near_that_of_the_same_number_is_named(means: Means) -> None:
    means[:, 7] = means[:, 2]
    assert compare_means(means, means).nearest.tolist() == list(range(9))


def test_more_units_than_are_compared_at_a_time() -> None:
    means = np.random.default_rng(3).random((12, 1500)).astype(np.float16)
    order = np.random.default_rng(4).permutation(1500)
    assert compare_means(means, means[:, order]).nearest.tolist() == np.argsort(order).tolist()
