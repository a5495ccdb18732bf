"""Colours of photographs: how red, green and blue vary together, so that they can be optimised independently."""

from __future__ import annotations

import torch
from torch import Tensor

# The matrix square root of the covariance of colours in natural photographs, as published with Lucid (Olah et al.
# 2017); its columns are about brightness, blue against red, green against purple.
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def build_colour_matrix(channels: int) -> Tensor:
    """The matrix from independent colours to RGB, (3, 3), or the identity for grey, (1, 1).

    Its largest column has length 1."""
    return _COLOURS / _COLOURS.norm(dim=0).max() if channels == 3 else torch.ones(1, 1)


def mix_colours(independent: Tensor) -> Tensor:
    """Pictures in RGB, whose channels vary together as in photographs, from ones whose channels are independent:
    (N, C, H, W) both."""
    return torch.einsum("ij,njhw->nihw", build_colour_matrix(independent.shape[1]).to(independent), independent)
