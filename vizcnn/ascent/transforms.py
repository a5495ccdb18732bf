"""Transforms: small random movements of a picture before the network sees it, so that no single pixel can matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.ascent.rng import Rng


@dataclass(frozen=True)
class Transforms:
    """Random movements, all relative to the picture's size and drawn anew for each picture in each step.

    jitter: largest shift, as a share of the picture's side.
    scale: largest change of size, as a share (0.1: between 0.9 and 1.1 times).
    rotate: largest rotation in degrees.
    pad: grey surroundings that come into view, as a share of the side on each of the four sides.
    crop: largest share of the side that is left out; what is seen lies anywhere in the picture.
    noise: standard deviation of noise on each pixel, in [0, 1] units.

    Without `pad`, what lies beyond the edge is the picture's mirror image. All movements together are one affine map
    and one bilinear sampling, so that a picture is blurred only once.
    """

    jitter: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    pad: float = 0.0
    crop: float = 0.0
    noise: float = 0.0

    def __call__(self, pictures: Tensor, rng: Rng) -> Tensor:
        """Pictures (N, C, H, W) as the network sees them in this step."""
        if any((self.jitter, self.scale, self.rotate, self.pad, self.crop)):
            pictures = self._sample(pictures, self._draw_maps(rng, pictures.shape))
        return pictures + self.noise * rng.normal(*pictures.shape[1:]) if self.noise else pictures

    def _draw_maps(self, rng: Rng, shape: torch.Size) -> Tensor:
        """The affine maps from what is seen to the picture, (N, 2, 3), in units of half a side."""
        turn, size, cut, down, right, free_down, free_right = rng.uniform(7).unbind(1)
        angle = torch.deg2rad(turn * self.rotate)
        kept = 1 - self.crop * (cut + 1) / 2  # (N,) share of the side that is seen
        zoom = kept * (1 + 2 * self.pad) / (1 + self.scale * size)
        across = 2 * self.jitter * right + (1 - kept) * free_right
        along = 2 * self.jitter * down + (1 - kept) * free_down
        tall = shape[2] / shape[3]  # rotation is in pixels, places are in shares of each side
        sin, cos = angle.sin() * zoom, angle.cos() * zoom
        rows = [torch.stack([cos, -sin * tall, across], 1), torch.stack([sin / tall, cos, along], 1)]
        return torch.stack(rows, 1)  # (N, 2, 3)

    def _sample(self, pictures: Tensor, maps: Tensor) -> Tensor:
        grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)  # (N, H, W, 2)
        if not self.pad:
            return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
        return F.grid_sample(pictures - 0.5, grid, padding_mode="zeros", align_corners=False) + 0.5
