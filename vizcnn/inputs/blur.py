"""A Gaussian blur of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(images: Tensor, sigma: float, reach: int) -> Tensor:
    """Images (N, C, H, W) blurred by a Gaussian with a standard deviation of `sigma` px.

    reach: the Gaussian is cut off so many px from its middle; at three sigma that leaves out 0.3% of its weight. Beyond
        the border the pixels at the edge are repeated."""
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    planes = images.flatten(0, 1)[:, None]  # (N C, 1, H, W)
    down = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="replicate"), kernel)
    both = F.conv2d(F.pad(down, (reach, reach, 0, 0), mode="replicate"), kernel.mT)
    return both.view(images.shape)
