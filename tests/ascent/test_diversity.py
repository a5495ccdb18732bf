"""Gram matrices and similarity, against plain sums."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from support import noise

from vizcnn.ascent import Objective, compute_gram
from vizcnn.ascent.diversity import measure_similarity
from vizcnn.models.targets import target

Array = npt.NDArray[np.float64]


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


def test_similarity_is_the_mean_cosine_to_the_other_copies() -> None:
    maps = noise(4, 3, 4, 5)
    objectives = [Objective(target(name), copy) for name, copy in (("a:0", 0), ("a:1", 0), ("a:0", 1), ("a:0", 2))]
    each = grams(maps.flatten(2).numpy()).reshape(4, -1)
    each /= np.linalg.norm(each, axis=1, keepdims=True)
    found = measure_similarity({"a": maps.split(1)}, [one.group for one in objectives]).tolist()
    copies = (0, 2, 3)
    for i in copies:
        assert found[i] == pytest.approx(np.mean([each[i] @ each[j] for j in copies if j != i]), rel=1e-5)
    assert found[1] == 0
