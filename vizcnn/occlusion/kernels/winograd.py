"""Winograd's convolution: kernels of 3x3 with half the multiplications.

Four rows of the outcome take six products of rows of the image and rows of the kernel instead of twelve, for additions
before and behind. Along the rows only: along both axes the additions would cost what is saved.

Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", CVPR, arXiv:1509.09308: F(4, 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_KERNEL = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""From three rows of a kernel to six."""

_ONCE = ((1, 1), (1, 1), 1)  # stride, dilation, groups


class Winograd:
    """A convolution with weights (K, C, 3, 3) and bias (K,) or None; stride and dilation are 1."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        rows = torch.einsum("jr,kcrs->jkcs", _KERNEL.to(weight), weight).unsqueeze(3)  # (6, K, C, 1, 3)
        like = [32, weight.shape[1], 1, 16]  # the images that weights are laid out for; others hardly take longer
        pack = torch.ops.mkldnn._reorder_convolution_weight
        self.rows = [pack(row, (0, 0), *_ONCE, like) for row in rows]
        self.biases = [None, bias, None, None, None, None]  # the second product counts once in each row of the outcome

    def __call__(self, image: Tensor, padding: Sequence[int]) -> Tensor:
        """From images (B, C, H, W), padded with zeros down and across, to (B, K, h, w), channels last."""
        height = image.shape[2] + 2 * padding[0] - 2
        tiles = -(-height // 4)
        places = _padded(image.movedim(1, 3), padding, 4 * tiles + 2)  # (B, 4t + 2, W, C)
        products = (_product(*each) for each in zip(_tiled(places), self.rows, self.biases, strict=True))
        return _untiled(products, height).movedim(3, 1)


def _padded(places: Tensor, padding: Sequence[int], height: int) -> Tensor:
    """Places (B, H, W, C) with zeros around them, and below up to a height."""
    down, across = padding
    below = height - places.shape[1] - down
    return F.pad(places, (0, 0, across, across, down, below)) if across or down or below else places.contiguous()


def _tiled(places: Tensor) -> Iterator[Tensor]:
    """From rows (B, 4t + 2, W, C) to six times (B, t, W, C)."""
    steps = places[:, 2:] - places[:, :-2]
    first, second, third, fourth = steps.unflatten(1, (-1, 4)).unbind(2)
    yield torch.sub(third, first, alpha=4)
    even = torch.sub(third, places[:, 2::4], alpha=3)
    odd = torch.sub(second, places[:, 1:-1:4], alpha=3)
    yield even + odd
    yield even.sub_(odd)
    yield torch.add(third, second, alpha=2)
    yield torch.sub(third, second, alpha=2)
    yield torch.sub(fourth, second, alpha=4)


def _product(tile: Tensor, row: Tensor, bias: Tensor | None) -> Tensor:
    """Each row (B, t, W, C) with one row of the kernel: (B, t, w, K)."""
    images = tile.flatten(0, 1).unsqueeze(1).movedim(3, 1)  # (B t, C, 1, W)
    out = torch.ops.mkldnn._convolution_pointwise(images, row, bias, (0, 0), *_ONCE, "none", [], "")
    rows: Tensor = out.movedim(1, 3).view(*tile.shape[:2], out.shape[3], out.shape[1])
    return rows


def _untiled(products: Iterator[Tensor], height: int) -> Tensor:
    """From six products (B, t, w, K) to rows (B, height, w, K)."""
    first, plus, minus = next(products), next(products), next(products)
    near, tilt = plus + minus, plus.sub_(minus)
    plus, minus = next(products), next(products)
    far, bend = plus + minus, plus.sub_(minus)
    out = first.new_empty(len(first), height, *first.shape[2:])
    sums = ((first.add_(near), far, 1), (tilt, bend, 2), (near, far, 4), (tilt + next(products), bend, 8))
    for row, (one, other, times) in enumerate(sums):
        rows = out[:, row::4]
        torch.add(one[:, : rows.shape[1]], other[:, : rows.shape[1]], alpha=times, out=rows)
    return out
