"""Networks whose class is decided by a planted tag, or not: no training, so that an audit's answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizcnn

SIDE = 32
LABELS = ("red", "green", "blue")
TAG = torch.tensor(np.random.default_rng(5).random((3, 6, 6)) > 0.5).float()  # (3, 6, 6)
CORNER = (2, 24)
"""Top and left of the tag where it stays at its place."""

Labels = list[int]


class Tagged(nn.Module):
    """Three classes by the mean of each channel; the first also by the tag, found at any place by its correlation.

    use: logits that a whole tag is worth. frame: logits that white outermost px are worth."""

    def __init__(self, use: float = 0.0, frame: float = 0.0) -> None:
        super().__init__()
        self.match = nn.Conv2d(3, 1, 6, padding=3)
        pattern = TAG - TAG.mean((1, 2), keepdim=True)
        self.match.weight.data = (pattern / pattern.square().sum())[None]
        self.match.bias.data = torch.tensor([-0.8])  # type: ignore[union-attr]
        self.use, self.frame = use, frame

    def forward(self, images: Tensor) -> Tensor:
        logits = 20 * (images.mean((2, 3)) - images.mean((1, 2, 3))[:, None])  # (N, 3)
        tag = 5 * F.relu(self.match(images)).amax((1, 2, 3))  # (N,), 1 for a whole tag
        edge = images[:, :, [0, -1]].amin((1, 2, 3)) * self.frame  # (N,)
        return logits + F.one_hot(torch.tensor([0]), 3) * (self.use * tag + edge)[:, None]


def make_model(use: float = 0.0, frame: float = 0.0, labels: Sequence[str] = LABELS) -> vizcnn.Model:
    return vizcnn.Model(Tagged(use, frame), size=SIDE, labels=labels, head="logits", name="tagged")


def draw_images(per_class: int = 24, seed: int = 0) -> tuple[Tensor, Labels]:
    """Images of the three classes, a soft picture each that is a little brighter in the class's channel."""
    random = torch.Generator().manual_seed(seed)
    shapes = F.interpolate(torch.rand(3 * per_class, 3, 8, 8, generator=random), (SIDE, SIDE), mode="bilinear")
    images = 0.2 + 0.4 * shapes + 0.1 * torch.rand(shapes.shape, generator=random)
    labels = [k for k in range(3) for _ in range(per_class)]
    for image, label in zip(images, labels, strict=True):
        image[label] += 0.1 - 0.5 * (image[label].mean() - image.mean())
    return images.clamp(0, 1), labels


def plant_tags(images: Tensor, which: Sequence[int], *, moving: bool = False) -> Tensor:
    """The images with the tag in some of them."""
    planted, random = images.clone(), np.random.default_rng(1)
    for i in which:
        top, left = random.integers(0, SIDE - 6, 2).tolist() if moving else CORNER
        planted[i, :, top : top + 6, left : left + 6] = TAG
    return planted


def plant_frames(images: Tensor, which: Sequence[int]) -> Tensor:
    """The images with a white frame of 2 px in some of them."""
    planted = images.clone()
    for i in which:
        middle = planted[i, :, 2:-2, 2:-2].clone()
        planted[i] = 1.0
        planted[i, :, 2:-2, 2:-2] = middle
    return planted
