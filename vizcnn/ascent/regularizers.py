"""Regularizers: what keeps a picture from becoming the noise that raises its target most.

A `Penalty` is subtracted from the target; a `Repair` changes the pixels themselves between steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vizcnn.inputs.blur import gaussian_blur


@dataclass(frozen=True)
class Penalty:
    """What is subtracted from the target, a sum over all pixels and colours:

        l1 |x| + l2 x^2 + alpha |2x|^6 + tv (dx^2 + dy^2)^(power / 2)

    where x is a pixel's distance from `origin`, and dx, dy are its differences from the pixels right of it and below.

    l1, l2: as in Simonyan et al. 2014. alpha: the bound on brightness of Mahendran & Vedaldi 2015.
    tv: total variation (the same). power: 1 gives flat areas with sharp edges, 2 soft pictures.
    origin: the value from which x counts: `black`, or `mean`, the colour that the network's input is centred on.
    """

    l1: float = 0.0
    l2: float = 0.0
    alpha: float = 0.0
    tv: float = 0.0
    power: float = 2.0
    origin: Literal["black", "mean"] = "mean"

    @property
    def is_none(self) -> bool:
        return not (self.l1 or self.l2 or self.alpha or self.tv)

    def __call__(self, pictures: Tensor, mean: Tensor) -> Tensor:
        """The penalty of each picture (N, C, H, W), weights included: (N,). mean: of the network's input,
        (1, C, 1, 1)."""
        x = pictures if self.origin == "black" else pictures - mean
        total = pictures.new_zeros(len(pictures))
        if self.l1:
            total = total + self.l1 * x.abs().sum((1, 2, 3))
        if self.l2:
            total = total + self.l2 * x.square().sum((1, 2, 3))
        if self.alpha:
            total = total + self.alpha * (2 * x).pow(6).sum((1, 2, 3))
        return total + self.tv * measure_total_variation(pictures, self.power) if self.tv else total


def measure_total_variation(pictures: Tensor, power: float) -> Tensor:
    """The sum of (dx^2 + dy^2 + 1e-8)^(power / 2) over all pixels with neighbours right and below, (N,) from
    (N, C, H, W). The 1e-8 gives flat areas a gradient where the power is 1."""
    down = pictures[..., 1:, :-1] - pictures[..., :-1, :-1]
    right = pictures[..., :-1, 1:] - pictures[..., :-1, :-1]
    return (down.square() + right.square() + 1e-8).pow(power / 2).sum((1, 2, 3))


@dataclass(frozen=True)
class Repair:
    """What is done to the pixels after each step (Yosinski et al. 2015); x is a pixel's distance from the mean colour.

    decay: share by which x shrinks in each step.
    blur: standard deviation in px of a Gaussian blur, every `every` steps.
    small_norm: percentage of pixels with the smallest |x| that are set to the mean colour in each step.
    small_contribution: the same, of the pixels with the smallest |x * gradient|.
    """

    decay: float = 0.0
    blur: float = 0.0
    every: int = 4
    small_norm: float = 0.0
    small_contribution: float = 0.0

    @property
    def is_none(self) -> bool:
        return not (self.decay or self.blur or self.small_norm or self.small_contribution)

    def __call__(self, pixels: Tensor, mean: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The pixels (N, C, H, W) after the repair.

        mean: of the network's input, (1, C, 1, 1). gradient: of the target, (N, C, H, W). step: counted from 1."""
        x = (pixels - mean) * (1 - self.decay)  # (N, C, H, W)
        if self.blur and step % self.every == 0:
            x = gaussian_blur(x, self.blur, reach=max(1, round(3 * self.blur)))
        if self.small_norm:
            x = drop_smallest(x, x.norm(dim=1, keepdim=True), self.small_norm)
        if self.small_contribution:
            x = drop_smallest(x, (x * gradient).sum(1, keepdim=True).abs(), self.small_contribution)
        return x + mean


def drop_smallest(x: Tensor, size: Tensor, percentage: float) -> Tensor:
    """x (N, C, H, W) with zero at that percentage of each picture's pixels where `size` (N, 1, H, W) is smallest."""
    bound = size.flatten(1).quantile(percentage / 100, 1)  # (N,)
    return x * (size >= bound.view(-1, 1, 1, 1))
