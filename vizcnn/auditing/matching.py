"""Matching: how much alike pixels are, and where in an image a template's pixels are found again.

Likeness is 1 for copied pixels and about 0 for unrelated ones. For a template t and a part p of an image

    likeness = min(1 - |p - t|^2 / u, correlation of p and t)

u: the median of |p - t|^2 over all places of images that have nothing to do with the template. correlation: of what
differs from each channel's mean, so that smooth sky is no copy of smooth paint.

Px that shine through, that JPEG changed or that were made larger are no equal px. Their pattern is still alike: the
correlation alone, at the best place and the best of a few sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

Corners = npt.NDArray[np.int64]
Likeness = npt.NDArray[np.float64]

TEXTURE = 0.06
"""The standard deviation within a template from which its pixels can be told from other smooth ones."""

FAINTEST = 2e-3
"""The least mean squared difference that counts as that of unrelated pixels."""

SIZES = (0.8, 0.9, 1.0, 1.12, 1.25)
"""How many times larger a pattern may be found again: steps that cost a tag of 5 x 5 checks less than a tenth of its
correlation."""

_FAINT = TEXTURE / 2  # the deviation below which px have no pattern: one that shines half through keeps half of it
_NUMBERS = 2**20  # of images that are transformed at once
_OTHERS = 8  # unrelated images


@dataclass(frozen=True)
class Found:
    """Where a cue was found in each of n images: likeness (n,), and top and left of the best place, (n, 2)."""

    likeness: Likeness
    corners: Corners


class Template:
    """Pixels (C, h, w) that are looked for in other images. unrelated: images (n, C, H, W) that say what chance is."""

    def __init__(self, pixels: Tensor, unrelated: Tensor) -> None:
        self.pixels, self._unrelated = pixels, unrelated[:_OTHERS]

    def __getstate__(self) -> dict[str, Any]:
        """What is sent and kept: the number in place of the images that it was measured on."""
        return {"pixels": self.pixels.clone(), "chance": self.chance}

    @cached_property
    def chance(self) -> float:
        """The median of |p - t|^2 for unrelated px."""
        return max(float(measure_distances(self._unrelated, self.pixels).median()), FAINTEST * self.pixels.numel())

    @property
    def has_texture(self) -> bool:
        return measure_texture(self.pixels) >= TEXTURE

    def find(self, images: Tensor) -> Found:
        """The best place of each of the images (n, C, H, W), and its likeness."""
        step = max(1, _NUMBERS // images[0].numel())
        corners = torch.cat([self._find_corners(part) for part in images.split(step)])  # (n, 2)
        return Found(self.compare(images, corners), corners.numpy())

    def _find_corners(self, images: Tensor) -> Tensor:
        """Top and left of the nearest px of each of the images (n, C, H, W), (n, 2)."""
        distances = measure_distances(images, self.pixels)  # (n, y, x)
        best = distances.flatten(1).argmin(1)  # (n,)
        return torch.stack([best // distances.shape[2], best % distances.shape[2]], 1)

    def compare(self, images: Tensor, corners: Tensor) -> Likeness:
        """The likeness of each image (n, C, H, W) at a place, of which top and left are given (n, 2): (n,)."""
        height, width = self.pixels.shape[1:]
        pairs = zip(images, corners.tolist(), strict=True)
        parts = torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in pairs])  # (n, C, h, w)
        near = 1 - (parts - self.pixels).square().sum((1, 2, 3)) / self.chance  # (n,)
        return np.asarray(torch.minimum(near, correlate(parts, self.pixels)).double().numpy())

    def find_alike(self, images: Tensor) -> Found:
        """The place of each of the images (n, C, H, W) whose pattern is most alike at any of `SIZES`: its correlation,
        and top and left of a box of the template's own size around its middle."""
        height, width = self.pixels.shape[1:]
        best = torch.full((len(images),), -torch.inf)
        corners = torch.zeros(len(images), 2, dtype=torch.int64)
        for size in SIZES:
            shape = (round(height * size), round(width * size))
            if shape[0] > images.shape[2] or shape[1] > images.shape[3]:
                continue
            found = measure_correlations(images, _resize(self.pixels, shape))  # (n, y, x)
            highest, place = found.flatten(1).max(1)  # (n,)
            middle = torch.tensor([(shape[0] - height) // 2, (shape[1] - width) // 2])
            at = torch.stack([place // found.shape[2], place % found.shape[2]], 1) + middle  # (n, 2)
            corners = torch.where((highest > best)[:, None], at, corners)
            best = torch.maximum(best, highest)
        return Found(best.double().numpy(), corners.numpy())


def _resize(pixels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pixels (C, h, w) in another shape."""
    same = shape == tuple(pixels.shape[1:])
    return pixels if same else F.interpolate(pixels[None], shape, mode="bilinear", antialias=True)[0]


def measure_distances(images: Tensor, pixels: Tensor) -> Tensor:
    """|p - t|^2 of pixels t (C, h, w) at all places of images (n, C, H, W): (n, H - h + 1, W - w + 1).

    As |p|^2 - 2 p t + |t|^2, of which the mean is taken off first: small differences of large sums lose digits. The
    products p t of all places are one product of Fourier transforms, which costs as much for a large t as for a small
    one: no place need be skipped."""
    middle = pixels.mean()
    images, pixels = images - middle, pixels - middle
    sums = _sum_boxes(images.square().sum(1), pixels.shape[1], pixels.shape[2])  # (n, y, x)
    distances: Tensor = (sums.float() - 2 * _multiply(images, pixels) + pixels.square().sum()).clamp_min(0)
    return distances


def measure_correlations(images: Tensor, pixels: Tensor) -> Tensor:
    """The correlation of pixels (C, h, w) with those at all places of images (n, C, H, W), each channel less its mean:
    (n, H - h + 1, W - w + 1). A place that deviates by less than 0.03 counts as one that does: noise is no pattern."""
    _, height, width = pixels.shape
    images, pixels = images - images.mean((2, 3), keepdim=True), pixels - pixels.mean((1, 2), keepdim=True)
    means = _sum_boxes(images, height, width).square() / (height * width)  # (n, C, y, x)
    squares = (_sum_boxes(images.square(), height, width) - means).sum(1).clamp_min(_FAINT**2 * pixels.numel())
    size = squares.sqrt().float() * pixels.square().sum().sqrt().clamp_min(1e-6)  # (n, y, x)
    return _multiply(images, pixels) / size


def _multiply(images: Tensor, pixels: Tensor) -> Tensor:
    """The sums of the products of pixels (C, h, w) with those at all places of images (n, C, H, W): (n, y, x)."""
    rows, columns = (n - m + 1 for n, m in zip(images.shape[2:], pixels.shape[1:], strict=True))
    size = [next_fast_len(length, real=True) for length in images.shape[2:]]
    spectra = torch.fft.rfft2(images, s=size) * torch.fft.rfft2(pixels, s=size).conj()  # (n, C, H, W / 2 + 1)
    products: Tensor = torch.fft.irfft2(spectra.sum(1), s=size)[:, :rows, :columns]  # (n, y, x)
    return products


def _sum_boxes(values: Tensor, height: int, width: int) -> Tensor:
    """The sums of values (..., H, W) in boxes of so many px, at all places: (..., y, x), of double precision."""
    totals = F.pad(values, (1, 0, 1, 0)).double().cumsum(-2).cumsum(-1)  # (..., H + 1, W + 1)
    lines = totals[..., height:, :] - totals[..., :-height, :]  # (..., y, W + 1)
    return lines[..., width:] - lines[..., :-width]


def correlate(parts: Tensor, pixels: Tensor) -> Tensor:
    """The correlation of each part (n, C, h, w) with pixels (C, h, w), each channel less its mean: (n,)."""
    a = (parts - parts.mean((2, 3), keepdim=True)).flatten(1)  # (n, C h w)
    b = (pixels - pixels.mean((1, 2), keepdim=True)).flatten()  # (C h w,)
    size = a.square().sum(1).sqrt() * b.square().sum().sqrt()  # (n,)
    return torch.where(size > 0, a @ b / size.clamp_min(1e-12), 0.0)


def measure_texture(pixels: Tensor) -> float:
    """The standard deviation of pixels (C, h, w) from their channels' means."""
    return float((pixels - pixels.mean((1, 2), keepdim=True)).square().mean().sqrt())
