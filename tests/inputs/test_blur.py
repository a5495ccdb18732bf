from __future__ import annotations

import numpy as np
import pytest
import torch

from vizcnn.inputs.blur import gaussian_blur


def test_flat_regions_and_total_brightness_are_kept() -> None:
    torch.testing.assert_close(gaussian_blur(torch.full((1, 1, 9, 9), 0.3), 2.0, 6), torch.full((1, 1, 9, 9), 0.3))
    dot = torch.zeros(1, 1, 41, 41)
    dot[0, 0, 20, 20] = 1
    found = gaussian_blur(dot, 2.0, 6)[0, 0]
    assert found.sum().item() == pytest.approx(1)
    assert found[20, 22].item() / found[20, 20].item() == pytest.approx(np.exp(-0.5), rel=1e-4)


def test_the_formula_place_by_place_with_the_edge_repeated() -> None:
    images = torch.rand(2, 3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma, reach = 1.3, 3
    weights = {d: np.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)}
    found = gaussian_blur(images, sigma, reach)
    for n, c, y, x in ((0, 0, 0, 0), (1, 2, 3, 2), (0, 1, 6, 4), (1, 0, 1, 3)):
        near = sum(
            down * across * float(images[n, c, min(max(y + dy, 0), 6), min(max(x + dx, 0), 4)])
            for dy, down in weights.items()
            for dx, across in weights.items()
        )
        assert float(found[n, c, y, x]) == pytest.approx(near / sum(weights.values()) ** 2, rel=1e-12)
