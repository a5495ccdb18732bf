"""Photographs in another height and width, with the values that torch gives from all pixels at once in floats.

A photograph of 24 million px takes 72 MB as bytes and 288 MB as floats, and torch's interpolation copies the floats.
So it is done here a few rows at a time, as floats that are gone at once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.inputs.photo import Photo, Pixels, to_floats, to_grey

_REACH = 3  # rows beside a place that interpolation without antialiasing can read, and one more for rounding


def resample(
    photo: Photo,
    size: tuple[int, int],
    *,
    channels: Literal[1, 3],
    mode: Literal["bilinear", "bicubic"] = "bilinear",
    antialias: bool = True,
) -> Tensor:
    """A photograph as float32 (1, C, h, w) in [0, 1] of another height and width, in RGB or grey.

    It is bit for bit `F.interpolate(pixels, size, mode=mode, antialias=antialias).clamp(0, 1)`, and the pixels
    themselves where they have that size already. Raises ImageError for a copy that a result has kept."""
    if size == photo.size:
        return _to_tensor(photo.pixels, channels).clone()  # floats may be the person's own
    if antialias:
        # torch interpolates within each row first, and then between the rows that this has made shorter
        parts = (_to_tensor(band, channels) for band in photo.bands())  # (1, C, rows, W)
        shorter = [F.interpolate(part, (part.shape[2], size[1]), mode=mode, antialias=True) for part in parts]
        scaled = F.interpolate(torch.cat(shorter, 2), size, mode=mode, antialias=True)
    else:
        scaled = F.interpolate(_read_near(photo, size[0], channels), size, mode=mode)
    return scaled.clamp(0, 1)  # (1, C, h, w)


def _read_near(photo: Photo, height: int, channels: Literal[1, 3]) -> Tensor:
    """The pixels (1, C, H, W) of the rows that are read for a picture of this height without antialiasing.

    The others are zeros, of which the system makes memory only when they are read or written."""
    photo.check_whole()
    centres = (np.arange(height) + 0.5) * (photo.size[0] / height) - 0.5
    near = np.floor(centres)[:, None] + np.arange(-_REACH + 1, _REACH + 1)
    rows = np.unique(near.clip(0, photo.size[0] - 1).astype(int))
    pixels = np.zeros((*photo.size, channels), np.float32)
    for row in rows:
        pixels[row : row + 1] = _to_channels(to_floats(photo.held[row : row + 1]), channels)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def _to_tensor(pixels: Pixels, channels: Literal[1, 3]) -> Tensor:
    return torch.from_numpy(_to_channels(pixels, channels)).permute(2, 0, 1)[None]  # (1, C, h, W)


def _to_channels(pixels: Pixels, channels: Literal[1, 3]) -> Pixels:
    """Pixels (h, W, C) as RGB or grey."""
    if channels == 1:
        return to_grey(pixels)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
