"""Random numbers of which each picture has its own."""

from __future__ import annotations

import pytest
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


@pytest.mark.parametrize("most", [2**25, 6 * 174])  # numbers: of all steps, or of six steps of two pictures
def test_numbers_that_are_drawn_ahead_are_those_that_are_drawn_one_by_one(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Also where a step asks for something else than the first did, and after a step back."""
    monkeypatch.setattr("vizcnn.ascent.rng._MOST_AHEAD", most)

    def take(rng: Rng, odd: bool = False) -> list[torch.Tensor]:
        return [rng.uniform(7), *([rng.normal(3)] if odd else []), rng.normal(4, 20)]

    plain, ahead = Rng(3, ["a", "b"], DOUBLE), Rng(3, ["a", "b"], DOUBLE)
    wanted = [take(plain, odd=step == 7) for step in range(20)]
    found = [take(ahead)]
    ahead.learn_step()
    for block in (range(1, 4), range(4, 9), range(9, 12), range(12, 15), range(15, 18), range(18, 20)):
        ahead.begin_block(len(block), 21 - block[0])  # one more in all than is asked for
        first = [take(ahead, odd=step == 7) for step in block]
        ahead.rewind()
        found += [take(ahead, odd=step == 7) for step in block]
        for a, b in zip(first, found[-len(block) :], strict=True):
            assert all(map(torch.equal, a, b))
    for a, b in zip(wanted, found, strict=True):
        assert all(map(torch.equal, a, b))


def test_the_numbers_of_all_steps_are_sent_at_once() -> None:
    sent = list[torch.Size]()
    rng = Rng(0, ["a", "b"], DOUBLE)
    rng.normal(5)
    rng.learn_step()
    real = torch.Tensor.to

    def send(self: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        sent.append(self.shape)
        return real(self, like)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "to", send)
        for block in (range(3), range(3, 11), range(11, 19), range(19, 20)):
            rng.begin_block(len(block), 20 - block[0])
            for _ in block:
                rng.normal(5)
    assert sent == [(20, 2, 5)]


def test_numbers_are_drawn_ahead_within_bounded_memory() -> None:
    rng = Rng(0, ["a"], DOUBLE)
    rng.normal(2**24)
    rng.learn_step()
    assert rng.count_steps(8) == 2
