"""Networks that say where things are, whose answers are known: colours as classes, a map for each or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import label
from torch import Tensor, nn

import vizcnn

COLOURS = ("__background__", "red", "green", "blue")


class ColourMaps(nn.Module):
    """A map for each of the classes `COLOURS`: how much more of a colour than of the others the 3 x 3 pixels around
    hold, and 0.287 for the background.

        logit(red) = mean over 3 x 3 (red - (green + blue) / 2)
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.fill_(-0.5 / 9)
            for colour in range(3):
                self.conv.weight[colour + 1, colour] = 1 / 9
            self.conv.weight[0] = 0
            self.conv.bias = nn.Parameter(torch.tensor([0.287, 0, 0, 0]))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.conv(images)  # (N, 4, H, W)
        return maps


def compute_maps(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same of one image (3, H, W), slowly, in float64: (4, H, W)."""
    _, height, width = image.shape
    wide = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    sums = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            sums[:, y, x] = wide[:, y : y + 3, x : x + 3].sum((1, 2)) / 9
    colours = [sums[c] - sum(sums[k] for k in range(3) if k != c) / 2 for c in range(3)]
    return np.stack([np.full((height, width), 0.287), *colours])


def paint(size: tuple[int, int], *blobs: tuple[int, int, int, int, int, float]) -> Tensor:
    """A black image (3, H, W) with rectangles: the colour's number, top, left, bottom, right, and how bright."""
    image = torch.zeros(3, *size)
    for colour, top, left, bottom, right, bright in blobs:
        image[colour - 1, top:bottom, left:right] = bright
    return image


class BlobDetector(nn.Module):
    """Finds the connected pixels of more than 0.3 of a colour, as torchvision's detectors answer: their box, the number
    of the colour, and as score the mean of the colour over the box."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        return [_to_tensors(find_blobs(image), images) for image in images.detach().double().cpu().numpy()]


Found = list[tuple[tuple[int, int, int, int], int, float]]
"""For each box its left, top, right and bottom, the number of the class, and the score."""


def find_blobs(image: npt.NDArray[np.float64]) -> Found:
    found: Found = []
    for colour in range(3):
        parts, count = label(image[colour] > 0.3)
        for part in range(1, count + 1):
            rows, columns = np.nonzero(parts == part)
            top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
            found.append(((left, top, right, bottom), colour + 1, image[colour, top:bottom, left:right].mean()))
    return found


def _to_tensors(found: Found, like: Tensor) -> dict[str, Tensor]:
    return {
        "boxes": like.new_tensor([[float(edge) for edge in box] for box, _, _ in found]).view(-1, 4),
        "labels": torch.tensor([index for _, index, _ in found], dtype=torch.int64),
        "scores": like.new_tensor([float(score) for _, _, score in found]),
    }


def score_blobs(image: npt.NDArray[np.float64], box: Sequence[int], index: int) -> float:
    """The score of a box for an image, by the sets of the pixels that boxes cover."""

    def list_pixels(one: Sequence[int]) -> set[tuple[int, int]]:
        return {(y, x) for y in range(one[1], one[3]) for x in range(one[0], one[2])}

    own = list_pixels(box)
    of_class = [(list_pixels(other), score) for other, label_, score in find_blobs(image) if label_ == index]
    return max((len(own & other) / len(own | other) * score for other, score in of_class), default=0.0)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union, by the lengths of the sides."""
    across, down = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)]
    return across * down / (sum(areas) - across * down)


def model_of(network: Any, size: int | tuple[int, int] = 24, **options: Any) -> vizcnn.Model:
    """A Model with the names of the colours and no normalisation."""
    return vizcnn.Model(network, size=size, **{"labels": COLOURS, **options})
