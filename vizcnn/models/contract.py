"""Input contract: how a photograph becomes an input of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal

import torch
from torch import Tensor

from vizcnn.errors import ImageError, ParameterError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.resampling import resample

_LARGEST_SCALED = 25_000_000  # px; only images hundreds of times longer than wide come near


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """How a photograph becomes an input of the network.

    size: height and width of the input in px.
    channels: 3 for RGB, 1 for grey.
    mean, std: per channel, for values in [0, 1]; applied inside the model's forward.
    fit: `crop` scales the photograph and cuts its centre; `stretch` shows all of it, distorted to `size`.
    resize: with `crop`, the shorter side in px before the cut; None scales so that the input is just covered.
    antialias: smooth before making smaller, as Pillow does; False for networks trained on images made without.
    """

    size: tuple[int, int]
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    fit: Literal["crop", "stretch"] = "crop"
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.channels not in (1, 3) or self.fit not in ("crop", "stretch"):
            raise ParameterError(
                f"an input has a positive size, 1 or 3 channels and a fit of crop or stretch, got {self}"
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise ParameterError(f"mean and std need {self.channels} values, got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ParameterError(f"std must be positive, got {self.std}")
        if self.resize is not None and self.resize < max(self.size):
            raise ParameterError(
                f"resize must be at least the input's longer side {max(self.size)} px, got {self.resize}"
            )

    def scaled_size(self, photo: tuple[int, int]) -> tuple[int, int]:
        """Height and width to which a photograph of height and width `photo` is resampled before it is cropped."""
        if self.fit == "stretch":
            return self.size
        (h, w), (height, width) = photo, self.size
        if self.resize is not None:  # as torchvision rounds
            short, long = min(h, w), max(h, w)
            other = int(self.resize * long / short)
            return (self.resize, other) if h <= w else (other, self.resize)
        scale = max(height / h, width / w)
        return max(height, round(h * scale)), max(width, round(w * scale))

    def prepared(self, photo: Photo) -> tuple[Tensor, Box]:
        """A photograph as input, float32 (C, H, W) in [0, 1], and the box of the photograph that this input shows.

        Raises ImageError."""
        scaled = self.scaled_size(photo.size)
        if scaled[0] * scaled[1] > _LARGEST_SCALED:
            raise ImageError(
                f"{photo.name} is {photo.size[1]} x {photo.size[0]} px: scaled to the input's size, before the cut, it "
                f"would have {scaled[1]} x {scaled[0]}. Cut out the part to look at first"
            )
        pixels = resample(
            photo, scaled, channels=self.channels, mode=self.interpolation, antialias=self.antialias
        )  # (1, C, h, w)
        (top, left), (height, width) = self._corner(scaled), self.size
        cut = pixels[0, :, top : top + height, left : left + width]  # (C, H, W)
        # a copy, since a view keeps the memory of what was cut off
        return cut.clone(memory_format=torch.contiguous_format), self.seen(photo.size)

    def seen(self, photo: tuple[int, int]) -> Box:
        """The box of a photograph of height and width `photo` that the network sees, in px of the photograph."""
        scaled = self.scaled_size(photo)
        (top, left), (height, width) = self._corner(scaled), self.size
        return Box(top, left, top + height, left + width).map_onto(scaled, Box(0, 0, *photo))

    def _corner(self, scaled: tuple[int, int]) -> tuple[int, int]:
        """Top and left of the crop in a photograph that was resampled to this size."""
        return round((scaled[0] - self.size[0]) / 2), round((scaled[1] - self.size[1]) / 2)


def parse_size(size: Any) -> tuple[int, int]:
    """Height and width from a side or a pair. Raises ParameterError."""
    try:
        height, width = (size, size) if hasattr(size, "__index__") else size
        return index(height), index(width)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"size is a side in px or (height, width), got {size!r}") from error


def parse_per_channel(name: str, values: Sequence[float] | None, default: float, channels: int) -> tuple[float, ...]:
    try:
        return tuple(map(float, values)) if values is not None else (default,) * channels
    except TypeError as error:
        raise ParameterError(f"{name} is a sequence of {channels} numbers, got {values!r}") from error
