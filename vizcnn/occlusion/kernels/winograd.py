"""Winograd's convolution: kernels of 3x3 with half the multiplications.

Four rows of the outcome take six products of rows of the image and rows of the kernel instead of twelve, for additions
before and behind. Along the rows only: along both axes the additions would cost what is saved. With six rows d of the
image and three rows g of the kernel, the four rows of the outcome are A^T m, where m = (G g) * (B^T d):

            1 / 4      0      0              4   0  -5   0   1   0
           -1 / 6   -1/6   -1/6              0  -4  -4   1   1   0              1   1   1   1   1   0
    G  =   -1 / 6    1/6   -1/6      B^T =   0   4  -4  -1   1   0      A^T =   0   1  -1   2  -2   0
            1 / 24  1/12    1/6              0  -2  -1   2   1   0              0   1   1   4   4   0
            1 / 24 -1/12    1/6              0   2  -1  -2   1   0              0   1  -1   8  -8   1
              0        0      1              0   4   0  -5   0   1

Here * is a convolution along the columns, of each row with one row of the kernel, over all channels.

Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", CVPR, arXiv:1509.09308: F(4, 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_ONCE = ((1, 1), (1, 1), 1)  # stride, dilation, groups


class Winograd:
    """A convolution with weights (K, C, 3, 3) and bias (K,) or None; stride and dilation are 1."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        rows = torch.einsum("jr,kcrs->jkcs", _G.to(weight), weight).unsqueeze(3)  # (6, K, C, 1, 3)
        like = [32, weight.shape[1], 1, 16]  # the images that weights are laid out for; others hardly take longer
        pack = torch.ops.mkldnn._reorder_convolution_weight
        self.rows = [pack(row, (0, 0), *_ONCE, like) for row in rows]
        self.biases = [None, bias, None, None, None, None]  # the second product counts once in each row of the outcome

    def __call__(self, image: Tensor, padding: Sequence[int]) -> Tensor:
        """From images (B, C, H, W), padded with zeros down and across, to (B, K, h, w), channels last."""
        height = image.shape[2] + 2 * padding[0] - 2
        tiles = -(-height // 4)
        places = _padded(image.movedim(1, 3), padding, 4 * tiles + 2)  # (B, 4t + 2, W, C)
        products = (_product(*each) for each in zip(_image_rows(places), self.rows, self.biases, strict=True))
        return _outcome(products, height).movedim(3, 1)


def _padded(places: Tensor, padding: Sequence[int], height: int) -> Tensor:
    """Places (B, H, W, C) with zeros around them, and below up to a height."""
    down, across = padding
    below = height - places.shape[1] - down
    return F.pad(places, (0, 0, across, across, down, below)) if across or down or below else places.contiguous()


def _image_rows(places: Tensor) -> Iterator[Tensor]:
    """B^T d: from rows (B, 4t + 2, W, C), of which each six overlap by two, to six times (B, t, W, C)."""
    steps = places[:, 2:] - places[:, :-2]
    d20, d31, d42, d53 = steps.unflatten(1, (-1, 4)).unbind(2)  # d2 - d0, and so on
    yield torch.sub(d42, d20, alpha=4)
    even = torch.sub(d42, places[:, 2::4], alpha=3)  # d4 - 4 d2
    odd = torch.sub(d31, places[:, 1:-1:4], alpha=3)  # d3 - 4 d1
    yield even + odd
    yield even.sub_(odd)
    yield torch.add(d42, d31, alpha=2)
    yield torch.sub(d42, d31, alpha=2)
    yield torch.sub(d53, d31, alpha=4)


def _product(tile: Tensor, row: Tensor, bias: Tensor | None) -> Tensor:
    """Each row (B, t, W, C) with one row of the kernel: (B, t, w, K)."""
    images = tile.flatten(0, 1).unsqueeze(1).movedim(3, 1)  # (B t, C, 1, W)
    out = torch.ops.mkldnn._convolution_pointwise(images, row, bias, (0, 0), *_ONCE, "none", [], "")
    rows: Tensor = out.movedim(1, 3).view(*tile.shape[:2], out.shape[3], out.shape[1])
    return rows


def _outcome(products: Iterator[Tensor], height: int) -> Tensor:
    """A^T m: from six products m (B, t, w, K) to rows (B, height, w, K)."""
    m0, m1, m2 = next(products), next(products), next(products)
    sum12, difference12 = m1 + m2, m1.sub_(m2)
    m3, m4 = next(products), next(products)
    sum34, difference34 = m3 + m4, m3.sub_(m4)
    del m2, m4  # two products less in memory while the last is made
    out = m0.new_empty(len(m0), height, *m0.shape[2:])
    terms = (
        (m0.add_(sum12), sum34, 1),
        (difference12, difference34, 2),
        (sum12, sum34, 4),
        (difference12 + next(products), difference34, 8),
    )
    for row, (one, other, times) in enumerate(terms):
        rows = out[:, row::4]
        torch.add(one[:, : rows.shape[1]], other[:, : rows.shape[1]], alpha=times, out=rows)
    return out
