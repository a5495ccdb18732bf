"""Penalties and repairs, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from support import noise

from vizcnn.ascent import Penalty, Repair

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
