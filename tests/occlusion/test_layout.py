"""How images lie in memory must never change an answer, only how soon it comes."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizcnn


class Watched(nn.Module):
    """Notes of each run whether its images lay channels last."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3), body
        self.runs: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.runs.append(x.is_contiguous(memory_format=torch.channels_last))
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


@pytest.mark.parametrize("batch", [9, 2, 1])
@pytest.mark.parametrize(
    ("body", "channels_last"), [(flattened, True), (viewed, False), (as_it_lies, False), (insisting, False)]
)
def test_channels_last_is_for_networks_that_say_the_same_then(
    body: Callable[[Tensor], Tensor], channels_last: bool, batch: int
) -> None:
    torch.manual_seed(0)
    network, images = Watched(body), torch.rand(2, 3, 12, 12)
    probe = vizcnn.Occlusion(window=4, stride=4, fill="#000000", engine="plain", batch=batch)
    found = probe(vizcnn.Model(network, size=12), images, target=5, progress=False)
    assert set(network.runs[-2 * ceil(9 / batch) :]) == {channels_last}
    np.testing.assert_allclose(found.values[1, 0], by_hand(network, images[1]), atol=1e-6)


def test_what_one_image_needs_all_get() -> None:
    torch.manual_seed(0)
    network = Watched(lambda x: viewed(x) if x.var() > 0.01 else flattened(x))
    images = torch.stack([torch.full((3, 12, 12), 0.5), torch.rand(3, 12, 12)])
    images[0, :, 0, 0] = 0.4
    probe = vizcnn.Occlusion(window=4, stride=4, fill="#808080", engine="plain", batch=9)
    found = probe(vizcnn.Model(network, size=12), images, target=5, progress=False)
    assert found.values.shape == (2, 1, 12, 12)
    assert network.runs[1]  # the first image alone may lie channels last
    assert not any(network.runs[-2:])


@pytest.mark.parametrize("body", [flattened, viewed, insisting])
def test_checks_of_the_engine_keep_to_the_layout(body: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network, image = Watched(body), torch.rand(3, 12, 12)
    probe = vizcnn.Occlusion(window=4, stride=4, fill="#000000", engine="incremental")
    found = probe(vizcnn.Model(network, size=12), image[None], target=5, progress=False)
    np.testing.assert_allclose(found.values[0, 0], by_hand(network, image), atol=1e-6)


@torch.no_grad()
def by_hand(network: nn.Module, image: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    drops = torch.zeros(12, 12)
    for top in range(0, 12, 4):
        for left in range(0, 12, 4):
            covered = image.clone()
            covered[:, top : top + 4, left : left + 4] = 0
            drops[top : top + 4, left : left + 4] = network(image[None])[0, 5] - network(covered[None])[0, 5]
    return drops.numpy()
