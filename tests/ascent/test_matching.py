"""Distances from what a layer should come to, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from support import noise

from vizcnn.ascent import compute_gram
from vizcnn.ascent.matching import ActivationDistance, GramDistance

Array = npt.NDArray[np.float64]


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
