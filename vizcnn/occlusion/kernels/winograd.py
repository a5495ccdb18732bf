"""Winograd's convolution: kernels of 3x3 with half the multiplications.

Four rows of the output take six products of a row of the image with a row of the kernel, instead of twelve, at the
price of additions before and after. Along the rows only: along both axes the additions would cost what is saved. From
six rows d of the image and the three rows g of the kernel, the four rows of the output are

    A^T m    where    m = (G g) * (B^T d)

and * is, for each of the six rows, a convolution along the columns and over all channels:

            1/4     0     0              4   0  -5   0   1   0
           -1/6  -1/6  -1/6              0  -4  -4   1   1   0              1   1   1   1   1   0
    G  =   -1/6   1/6  -1/6      B^T =   0   4  -4  -1   1   0      A^T =   0   1  -1   2  -2   0
           1/24  1/12   1/6              0  -2  -1   2   1   0              0   1   1   4   4   0
           1/24 -1/12   1/6              0   2  -1  -2   1   0              0   1  -1   8  -8   1
              0     0     1              0   4   0  -5   0   1

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
        rows = torch.einsum("jr,kcrs->jkcs", _G.to(weight), weight).unsqueeze(3)  # G g: (6, K, C, 1, 3)
        like = [32, weight.shape[1], 1, 16]  # the images for which the weights are ordered; others hardly take longer
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        self.rows = [reorder(row, (0, 0), *_ONCE, like) for row in rows]
        self.biases = [None, bias, None, None, None, None]  # column 1 of A^T is all 1: m1 counts once in each output

    def __call__(self, images: Tensor, padding: Sequence[int]) -> Tensor:
        """From images (B, C, H, W), padded with zeros down and across, to (B, K, h, w), channels last."""
        height = images.shape[2] + 2 * padding[0] - 2
        tiles = -(-height // 4)
        places = _pad(images.movedim(1, 3), padding, 4 * tiles + 2)  # (B, 4t + 2, W, C)
        products = (_convolve(*each) for each in zip(_transform_images(places), self.rows, self.biases, strict=True))
        return _transform_products(products, height).movedim(3, 1)


def _pad(places: Tensor, padding: Sequence[int], height: int) -> Tensor:
    """Places (B, H, W, C) with zeros around them, and below up to a height."""
    down, across = padding
    below = height - places.shape[1] - down
    return F.pad(places, (0, 0, across, across, down, below)) if across or down or below else places.contiguous()


def _transform_images(places: Tensor) -> Iterator[Tensor]:
    """The rows of B^T d, six times (B, t, W, C), from image rows (B, 4t + 2, W, C).

    d are six rows of the image; the next six overlap with them by two. One row of B^T d at a time, to save memory."""
    steps = places[:, 2:] - places[:, :-2]
    d20, d31, d42, d53 = steps.unflatten(1, (-1, 4)).unbind(2)  # d2 - d0, and so on
    yield torch.sub(d42, d20, alpha=4)  # 4 d0 - 5 d2 + d4
    even = torch.sub(d42, places[:, 2::4], alpha=3)  # d4 - 4 d2
    odd = torch.sub(d31, places[:, 1:-1:4], alpha=3)  # d3 - 4 d1
    yield even + odd  # -4 d1 - 4 d2 + d3 + d4
    yield even.sub_(odd)  # 4 d1 - 4 d2 - d3 + d4
    yield torch.add(d42, d31, alpha=2)  # -2 d1 - d2 + 2 d3 + d4
    yield torch.sub(d42, d31, alpha=2)  # 2 d1 - d2 - 2 d3 + d4
    yield torch.sub(d53, d31, alpha=4)  # 4 d1 - 5 d3 + d5


def _convolve(image_rows: Tensor, kernel_row: Tensor, bias: Tensor | None) -> Tensor:
    """A row of m, (B, t, w, K): a row of B^T d, (B, t, W, C), and a row of G g, convolved along the columns."""
    images = image_rows.flatten(0, 1).unsqueeze(1).movedim(3, 1)  # (B t, C, 1, W)
    out = torch.ops.mkldnn._convolution_pointwise(images, kernel_row, bias, (0, 0), *_ONCE, "none", [], "")
    product: Tensor = out.movedim(1, 3).view(*image_rows.shape[:2], out.shape[3], out.shape[1])
    return product


def _transform_products(products: Iterator[Tensor], height: int) -> Tensor:
    """A^T m: output rows (B, height, w, K) from the six rows of m, (B, t, w, K) each."""
    m0, m1, m2 = next(products), next(products), next(products)
    sum12, difference12 = m1 + m2, m1.sub_(m2)
    m3, m4 = next(products), next(products)
    sum34, difference34 = m3 + m4, m3.sub_(m4)
    del m2, m4  # two rows less in memory while the last is made
    out = m0.new_empty(len(m0), height, *m0.shape[2:])
    rows = (
        (m0.add_(sum12), 1, sum34),  # m0 + m1 + m2 + m3 + m4
        (difference12, 2, difference34),  # m1 - m2 + 2 m3 - 2 m4
        (sum12, 4, sum34),  # m1 + m2 + 4 m3 + 4 m4
        (difference12 + next(products), 8, difference34),  # m1 - m2 + 8 m3 - 8 m4 + m5
    )
    for row, (first, times, second) in enumerate(rows):
        target = out[:, row::4]  # the last four rows may reach beyond the height
        torch.add(first[:, : target.shape[1]], second[:, : target.shape[1]], alpha=times, out=target)
    return out
