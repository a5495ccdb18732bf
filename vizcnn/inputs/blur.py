"""A Gaussian blur of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(images: Tensor, sigma: float, reach: int) -> Tensor:
    """Images (N, C, H, W) under a Gaussian with a standard deviation of `sigma` px; beyond the border the edge goes on.

    reach: where the Gaussian is cut off, in px from its middle; three sigma leave out 0.3% of its weight."""
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    planes = images.flatten(0, 1)[:, None]  # (N C, 1, H, W)
    down = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="replicate"), kernel)
    both = F.conv2d(F.pad(down, (reach, reach, 0, 0), mode="replicate"), kernel.mT)
    return both.view(images.shape)
