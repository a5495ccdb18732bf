"""How many pictures are optimised together: by memory, fewer where it runs out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.ascent import RECIPES, Objective, Outcome, batches, optimize
from vizcnn.ascent.batches import choose_batch, group_objectives
from vizcnn.models.borrowing import borrow
from vizcnn.models.memory import SavedBytes, find_free_memory
from vizcnn.models.targets import Target, target

QUICK = replace(RECIPES["quick"], steps=6)


class Seeing(nn.Module):
    """Keeps the shapes of what the network is given, and has memory for so many images."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        self.shapes, self.room = list[tuple[int, ...]](), room

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise MemoryError
        self.shapes.append(tuple(images.shape))
        return images


def make(room: int = 1000, size: int = 16) -> tuple[vizcnn.Model, Seeing]:
    seeing = Seeing(room)
    return vizcnn.Model(nn.Sequential(seeing, small_cnn()), size=size), seeing


def ascend(of: vizcnn.Model, wanted: list[Any], recipe: Any = QUICK, **more: Any) -> Outcome:
    objectives = [Objective(one if isinstance(one, Target) else target(one)) for one in wanted]
    with borrow(of, "Test"):
        return optimize(of, objectives, recipe, progress=False, **more)


CHANNELS = [f"1.3:{i}" for i in range(8)]


@pytest.mark.parametrize(("free", "expected"), [(10**12, 16), (0, 1), (None, 16)])
def test_batches_are_sized_by_the_memory_that_is_free(
    free: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "find_free_memory", lambda _device: free)
    of, _ = make()
    objectives = [Objective(target(one)) for one in CHANNELS]
    with borrow(of, "Test"):
        (group,) = group_objectives(of, objectives, (16, 16))
        assert choose_batch(of, group, objectives[0], (16, 16)) == expected


def test_twice_the_memory_holds_twice_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    of, _ = make()
    objectives, found = [Objective(target(one)) for one in CHANNELS], []
    with borrow(of, "Test"):
        (group,) = group_objectives(of, objectives, (16, 16))
        for free in (1_000_000, 2_000_000):
            monkeypatch.setattr(batches, "find_free_memory", lambda _device, free=free: free)
            found.append(choose_batch(of, group, objectives[0], (16, 16)))
    assert found[1] in (2 * found[0], 2 * found[0] + 1)
    assert 1 < found[0] < 8


def test_what_a_run_holds_for_its_backward_pass_is_counted_once_and_without_weights() -> None:
    network, images = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), torch.rand(1, 3, 8, 8, requires_grad=True)
    with SavedBytes(network.requires_grad_(False)) as saved:
        network(images).square().sum().backward()
    assert saved.count == (3 + 4) * 64 * 4  # what the convolution is given, and what the ReLU gives
    assert (find_free_memory(torch.device("cpu")) or 1) > 0


def test_where_memory_runs_out_fewer_pictures_are_made_together() -> None:
    (whole, _), (tight, seeing) = make(), make(room=3)
    expected, found = ascend(whole, CHANNELS), ascend(tight, CHANNELS)
    torch.testing.assert_close(found.pictures, expected.pictures, atol=1e-4, rtol=0)
    assert max(shape[0] for shape in seeing.shapes) == 2
    with pytest.raises(MemoryError):
        ascend(make(room=0)[0], CHANNELS)
