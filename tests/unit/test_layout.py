"""How images lie in memory must never change an answer, only how soon it comes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizcnn


class Watched(nn.Module):
    """Notes of each run how many images it had and whether they lay channels last."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3), body
        self.runs: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.runs.append((len(x), x.is_contiguous(memory_format=torch.channels_last)))
        return self.body(self.conv(x))


def flattened(x: Tensor) -> Tensor:
    return x.flatten(1)[:, ::7]


def viewed(x: Tensor) -> Tensor:
    return x.view(len(x), -1)[:, ::7]


def as_it_lies(x: Tensor) -> Tensor:
    """Takes it for granted that rows lie one after the other, as a kernel of one's own may."""
    return x.as_strided((len(x), x[0].numel()), (x[0].numel(), 1))[:, ::7]


def insisting(x: Tensor) -> Tensor:
    assert x.is_contiguous()
    return flattened(x)


@pytest.mark.parametrize(
    ("body", "channels_last"), [(flattened, True), (viewed, False), (as_it_lies, False), (insisting, False)]
)
def test_channels_last_is_for_networks_that_say_the_same_then(
    body: Callable[[Tensor], Tensor], channels_last: bool
) -> None:
    torch.manual_seed(0)
    network, images = Watched(body), torch.rand(2, 3, 12, 12)
    probe = vizcnn.Occlusion(window=4, stride=4, fill="#000000", engine="plain", batch=9)
    found = probe(vizcnn.Model(network, size=12), images, target=5, progress=False)
    swept = [lies for count, lies in network.runs if count == 9]
    assert swept == [channels_last] * 2
    np.testing.assert_allclose(found.values[1, 0], by_hand(network, images[1]), atol=1e-6)


@torch.no_grad()
def by_hand(network: nn.Module, image: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    drops = torch.zeros(12, 12)
    for top in range(0, 12, 4):
        for left in range(0, 12, 4):
            covered = image.clone()
            covered[:, top : top + 4, left : left + 4] = 0
            drops[top : top + 4, left : left + 4] = network(image[None])[0, 5] - network(covered[None])[0, 5]
    return drops.numpy()
