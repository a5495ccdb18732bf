"""Colours of photographs: how red, green and blue vary together, so that they can be optimised independently."""

from __future__ import annotations

import torch
from torch import Tensor

# The matrix square root of the covariance of colours in natural photographs, as published with Lucid (Olah et al.
# 2017); its columns are about brightness, blue against red, green against purple.
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def colour_matrix(channels: int) -> Tensor:
    """From independent colours to RGB (3, 3), or nothing changed for grey (1, 1); the largest column has length 1."""
    return _COLOURS / _COLOURS.norm(dim=0).max() if channels == 3 else torch.ones(1, 1)


def coloured(plain: Tensor) -> Tensor:
    """Pictures whose channels are independent (N, C, H, W) as red, green and blue that vary together."""
    return torch.einsum("ij,njhw->nihw", colour_matrix(plain.shape[1]).to(plain), plain)
