"""Steadiness: does the map move with the picture?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vizcnn.evaluation.cells import Maps, compare

_STEPS = 56  # 4 px of 224


def choose_distance(size: tuple[int, int]) -> int:
    """By how many px the picture is moved: 1/56 of its shorter side, at least 1."""
    return max(1, round(min(size) / _STEPS))


def move_image(image: Tensor, distance: int) -> Tensor:
    """The image (C, H, W), moved down and to the right by so many px; its first row and column fill the gap."""
    rows, columns = ((torch.arange(length, device=image.device) - distance).clamp(min=0) for length in image.shape[1:])
    return image[:, rows[:, None], columns]


def measure_steadiness(values: Maps, image: Tensor, explain: Callable[[Tensor], Maps]) -> float:
    """The likeness of a map with that of the moved picture, moved back, where both see the same: from -1 to 1.

    values: (h, w), at least as fine as the image (C, H, W). explain: from an image (1, C, H, W) to its map, of the same
    height and width as `values`."""
    height, width = values.shape
    distance = choose_distance((image.shape[1], image.shape[2]))
    moved = explain(move_image(image, distance)[None])
    down, right = round(distance * height / image.shape[1]), round(distance * width / image.shape[2])
    return compare(values[: height - down, : width - right], moved[down:, right:])
