from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vizcnn.errors import ParameterError
from vizcnn.inputs.blur import gaussian_blur
from vizcnn.occlusion.windows import average_over_windows, make_baseline, occlude, parse_sides, place_windows


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    size = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    window = draw(st.integers(1, size[0])), draw(st.integers(1, size[1]))
    return size, window, (draw(st.integers(1, window[0])), draw(st.integers(1, window[1])))


@given(layouts())
def test_windows_cover_every_pixel_and_stay_inside(
    layout: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
) -> None:
    size, window, stride = layout
    covered = np.zeros(size, int)
    for top, bottom, left, right in place_windows(size, window, stride):
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        assert bottom - top <= window[0]
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1


@given(layouts(), st.integers(0, 5))
def test_the_map_is_the_mean_of_the_covering_windows(
    layout: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], seed: int
) -> None:
    size, window, stride = layout
    windows = place_windows(size, window, stride)
    drops = np.random.default_rng(seed).normal(size=(len(windows), 2))
    expected = np.empty((2, *size))
    for y, x in np.ndindex(size):
        over = [(t <= y < b) and (left <= x < r) for t, b, left, r in windows]
        expected[:, y, x] = drops[over].mean(0)
    np.testing.assert_allclose(average_over_windows(windows, drops, size), expected, rtol=1e-5, atol=1e-6)


def test_pixels_under_no_window_are_unknown() -> None:
    found = average_over_windows(np.array([[0, 1, 0, 1]]), np.array([[2.0]]), (2, 2))
    np.testing.assert_array_equal(found, [[[2, np.nan], [np.nan, np.nan]]])


def test_windows_that_cannot_be() -> None:
    with pytest.raises(ParameterError, match="the window is 9 px wide, the input only 8"):
        place_windows((10, 8), (9, 9), (1, 1))
    with pytest.raises(ParameterError, match="stride 4 is larger than the window's 3 px"):
        place_windows((10, 10), (3, 3), (4, 4))


def test_baselines() -> None:
    image = torch.rand(3, 6, 6)
    torch.testing.assert_close(make_baseline("mean", image, (0, 0, 0), (2, 2))[:, 3, 3], image.mean((1, 2)))
    assert make_baseline("model", image, (0.1, 0.2, 0.3), (2, 2))[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert make_baseline("#ff0000", image, (0, 0, 0), (2, 2))[:, 5, 5].tolist() == [1, 0, 0]
    torch.testing.assert_close(make_baseline("blur", image, (0, 0, 0), (2, 5)), gaussian_blur(image[None], 2.5, 8)[0])
    assert make_baseline("white", image[:1], (0,), (2, 2)).flatten().tolist() == pytest.approx([1] * 36)


def test_only_the_window_is_covered() -> None:
    image = torch.rand(3, 5, 6)
    batch = occlude(image, torch.full_like(image, 7.0), np.array([[0, 2, 1, 3], [4, 5, 0, 6]]))
    assert (batch[0, :, :2, 1:3] == 7).all()
    assert (batch[1, :, 4] == 7).all()
    batch[0, :, :2, 1:3] = image[:, :2, 1:3]
    torch.testing.assert_close(batch[0], image)


def test_sizes_in_text() -> None:
    assert parse_sides("32") == 32
    assert parse_sides("32x16") == (32, 16)
    for text in ("wide", "²", "5x", "1x2x3", "-5", ""):
        with pytest.raises(ValueError, match="a side in px such as 32, or HEIGHTxWIDTH"):
            parse_sides(text)
