"""Random numbers of which each picture has its own."""

from __future__ import annotations

import torch

from vizcnn.ascent.rng import Rng

DOUBLE = torch.empty(0, dtype=torch.float64)


def test_an_images_random_numbers_depend_on_seed_and_key_alone() -> None:
    torch.manual_seed(1)
    both = Rng(3, ["a", "b"], DOUBLE)
    torch.manual_seed(2)
    alone = Rng(3, ["b"], DOUBLE)
    for _ in range(2):
        assert torch.equal(both.normal(5)[1], alone.normal(5)[0])
    first, other, seeded = (Rng(seed, [key], DOUBLE).normal(5) for seed, key in ((3, "a"), (3, "b"), (4, "a")))
    assert not torch.equal(first, other)
    assert not torch.equal(first, seeded)


def test_uniform_numbers_lie_on_both_sides_of_zero() -> None:
    numbers = Rng(0, ["a"], DOUBLE).uniform(1000)
    assert -1 <= numbers.min() < -0.9
    assert 0.9 < numbers.max() < 1
