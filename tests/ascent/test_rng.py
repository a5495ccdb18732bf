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


def test_numbers_that_are_drawn_ahead_are_those_that_are_drawn_one_by_one() -> None:
    """Also where a step asks for something else than the first did, for less, and after a step back."""

    def take(rng: Rng, odd: bool = False) -> list[torch.Tensor]:
        return [rng.uniform(7), *([rng.normal(3)] if odd else []), rng.normal(4, 20)]

    plain, ahead = Rng(3, ["a", "b"], DOUBLE), Rng(3, ["a", "b"], DOUBLE)
    wanted = [take(plain, odd=step == 7) for step in range(12)]
    found = [take(ahead)]
    ahead.learn_step()
    for block in (range(1, 4), range(4, 9), range(9, 12)):
        ahead.begin_block(len(block) + 1)  # one more than is asked for
        first = [take(ahead, odd=step == 7) for step in block]
        ahead.rewind()
        found += [take(ahead, odd=step == 7) for step in block]
        for a, b in zip(first, found[-len(block) :], strict=True):
            assert all(map(torch.equal, a, b))
    for a, b in zip(wanted, found, strict=True):
        assert all(map(torch.equal, a, b))


def test_numbers_are_drawn_ahead_within_bounded_memory() -> None:
    rng = Rng(0, ["a"], DOUBLE)
    rng.normal(2**24)
    rng.learn_step()
    assert rng.count_steps(8) == 2
