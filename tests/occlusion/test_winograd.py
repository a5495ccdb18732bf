from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vizcnn.occlusion.kernels.packed import is_available, pack
from vizcnn.occlusion.kernels.winograd import Winograd

pytestmark = pytest.mark.skipif(not is_available(), reason="this torch has no oneDNN")


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("size", "padding"),
    [((4, 5), (1, 1)), ((1, 1), (1, 1)), ((3, 3), (0, 0)), ((7, 10), (0, 1)), ((9, 7), (2, 0)), ((14, 14), (1, 1))],
)
@torch.no_grad()
def test_it_gives_what_a_convolution_gives(size: tuple[int, int], padding: tuple[int, int], with_bias: bool) -> None:
    random = torch.Generator().manual_seed(0)
    images, weight = (torch.randn(shape, generator=random) for shape in [(2, 96, *size), (64, 96, 3, 3)])
    bias = torch.randn(64, generator=random) if with_bias else None
    expected = F.conv2d(images.double(), weight.double(), None if bias is None else bias.double(), padding=padding)
    found = Winograd(weight, bias)(images, padding)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


_PLAIN: dict[str, Any] = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}


@pytest.mark.parametrize(
    ("channels", "side", "height", "changed", "kind"),
    [
        (128, 3, 7, {}, "_WinogradConvolution"),
        (127, 3, 7, {}, "_Convolution"),
        (192, 5, 7, {}, "_Convolution"),
        (128, 3, 5, {}, "_Convolution"),
        (192, 3, 7, {"stride": [1, 2]}, "_Convolution"),
        (192, 3, 7, {"dilation": [2, 2]}, "_Convolution"),
        (384, 3, 7, {"groups": 2}, "_Convolution"),
        (192, 1, 7, {"padding": [0, 0]}, "_MatrixProduct"),
    ],
)
@torch.no_grad()
def test_it_is_used_for_many_channels_and_nothing_but_3x3(
    channels: int, side: int, height: int, changed: dict[str, Any], kind: str
) -> None:
    args = _PLAIN | changed
    weight = torch.randn(channels, channels // args["groups"], side, side)
    func = pack(args | {"weight": weight}, weight, None, (channels, height, 9), None)
    assert type(func).__name__ == kind
    images = torch.randn(2, channels, height, 9)
    expected = F.conv2d(images, weight, **args)
    found = func(input=images, **args)
    torch.testing.assert_close(found, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)
