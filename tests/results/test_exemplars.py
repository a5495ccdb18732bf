"""Exemplars: how kernels are shown beside photographs, and what is said of images that are not shown."""

from __future__ import annotations

import numpy as np
import pytest

from vizcnn.results.exemplars import Gaps, draw_kernel


def test_a_kernel_is_drawn_around_mid_grey_up_to_its_largest_weight() -> None:
    kernel = np.array([[[0.0], [2.0]], [[-4.0], [1.0]]], np.float32)
    np.testing.assert_allclose(draw_kernel(kernel), [[[0.5], [0.75]], [[0.0], [0.625]]])
    assert draw_kernel(kernel).dtype == np.float32
    np.testing.assert_array_equal(draw_kernel(np.zeros((2, 2, 3), np.float32)), np.full((2, 2, 3), 0.5))


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        (Gaps(9, (), {"conv": 0}, {}, 5), []),
        (Gaps(9, (), {"conv": 0}, {"conv": 5}, 5), []),
        (
            Gaps(9, ((3, "is empty"), (4, "is a pipe")), {"conv": 0}, {}, 5),
            ["2 of 9 images could not be read, the first: 3, is empty"],
        ),
        (Gaps(9, (), {"a": 0, "b": 2}, {}, 5), ["2 images gave NaN or infinity in layer 'b' and were left out"]),
        (Gaps(9, (), {"a": 0}, {"a": 4}, 5), ["the scan kept 4 images for each channel of layer 'a', not 5"]),
        (Gaps(9, (), {}, {}, 5, shards=(1, 8)), ["the scan is not complete: 1 of 8 shards are missing"]),
    ],
)
def test_each_gap_is_a_sentence(gaps: Gaps, said: list[str]) -> None:
    assert list(gaps.describe()) == said
