"""A network of which it is known what it answers by, and explanations of what it says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import vizcnn

SIDE = 24  # px of its input: 6 x 6 cells of 4 px
CELL = (2, 4)  # the row and column of the cell that it answers by


class Lamp(nn.Module):
    """`lit` where one cell is bright, `dark` elsewhere; `third` follows the brightness of the whole image a little."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Conv2d(3, 4, 1)  # of which the fourth sees nothing
        with torch.no_grad():
            self.eye.weight.copy_(torch.eye(4)[:, :3, None, None])
            self.eye.bias.zero_()  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        seen = self.eye(images)[:, :3]  # (N, 3, H, W)
        height, width = seen.shape[2] // 6, seen.shape[3] // 6
        top, left = CELL[0] * height, CELL[1] * width
        light = seen[:, :, top : top + height, left : left + width].mean((1, 2, 3))  # (N,)
        return torch.stack([0.1 * (1 - light), 8 * (light - 0.75), seen[:, :, ::5].mean((1, 2, 3)) - 3], 1)


def make_lamp(**options: object) -> vizcnn.Model:
    given = {"labels": ["dark", "lit", "third"], "name": "lamp", **options}
    return vizcnn.Model(Lamp(), size=SIDE, **given)  # type: ignore[arg-type]


def light_cell() -> Tensor:
    """An image (3, H, W) in which that cell is bright and all else is rather dark."""
    image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 0.2
    side = SIDE // 6
    image[:, CELL[0] * side : (CELL[0] + 1) * side, CELL[1] * side : (CELL[1] + 1) * side] = 1.0
    return image


def cells_of(*places: tuple[int, int]) -> np.ndarray:
    """A grid of 6 x 6 cells with these ones true."""
    grid = np.zeros((6, 6), bool)
    for place in places:
        grid[place] = True
    return grid
