"""Input contract: how a photograph becomes an input of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from operator import index
from typing import Any, Literal

import torch
from torch import Tensor

from vizcnn.errors import ImageError, ParameterError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.reading import Reading
from vizcnn.inputs.resampling import resample

_FITS, _INTERPOLATIONS = ("crop", "stretch"), ("bilinear", "bicubic")
_LEVELS = 255  # what white is in bytes
_LARGEST_SCALED = 25_000_000  # px; only images hundreds of times longer than wide come near


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """How a photograph becomes an input of the network.

    size: height and width of the input in px.
    channels: 3 for RGB, 1 for grey, or any other number, for images that have as many.
    mean, std: per channel, for values in [0, 1], so that means lie there too; applied inside the model's forward. A
        network that was trained on values from 0 to 255 has std 1/255.
    fit: `crop` scales the photograph and cuts its centre; `stretch` shows all of it, distorted to `size`.
    resize: with `crop`, the shorter side in px before the cut; None scales so that the input is just covered.
    antialias: smooth before making smaller, as Pillow does; False for networks trained on images made without.
    white: the value of white in images of more than 8 bits per sample, such as 4095 for 12 bits; by default what the
        file or the type of an array says, 65535 for 16 bits and 1 for floats. Values above it are refused.
    display: the channels, counted from 0, that are drawn as red, green and blue, such as (3, 2, 1), or one, drawn in
        grey. By default photographs as they are for 1 and 3 channels, the first three of more, the first of two.
    """

    size: tuple[int, int]
    channels: int = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    fit: Literal["crop", "stretch"] = "crop"
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    white: float | None = None
    display: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.channels < 1:
            raise ParameterError(
                f"an input has a positive size and 1 or more channels, got {self.size} and {self.channels} channels"
            )
        for name, value, known in (("fit", self.fit, _FITS), ("interpolation", self.interpolation, _INTERPOLATIONS)):
            if value not in known:
                raise ParameterError(f"{name} is {' or '.join(known)}, got {value!r}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ParameterError(
                f"mean and std need {self.channels} values, one for each channel, got {self.mean} and {self.std}. If "
                "the network takes another number of channels, say Model(channels=...), load(input_channels=...) or "
                "--input-channels"
            )
        check_normalisation(self.mean, self.std)
        if self.white is not None and not (isinstance(self.white, int | float) and 0 < self.white < inf):
            raise ParameterError(f"white is the value of white, such as 4095, got {self.white!r}")
        if self.display is None and self.channels not in (1, 3):
            object.__setattr__(self, "display", (0, 1, 2) if self.channels > 3 else (0,))
        if self.display is not None:
            _check_display(self.display, self.channels)
        if self.channels == 1:
            object.__setattr__(self, "display", None)  # photographs in colour are drawn in colour
        if self.resize is not None and self.resize < max(self.size):
            raise ParameterError(
                f"resize must be at least the input's longer side {max(self.size)} px, got {self.resize}"
            )

    @property
    def reading(self) -> Reading:
        """How image files and arrays are read for this network."""
        return Reading(channels=self.channels, white=self.white)

    @property
    def drawn(self) -> str:
        """Which channels are drawn, in words for small print; "" where images are drawn as they are."""
        if self.display is None:
            return ""
        if len(self.display) == 1:
            return f"channel {self.display[0]} of {self.channels} as grey"
        return f"channels {','.join(map(str, self.display))} of {self.channels} as red,green,blue"

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
        pixels = self.resample(photo, scaled)  # (1, C, h, w)
        (top, left), (height, width) = self._corner(scaled), self.size
        cut = pixels[0, :, top : top + height, left : left + width]  # (C, H, W)
        # a copy, since a view keeps the memory of what was cut off
        return cut.clone(memory_format=torch.contiguous_format), self.seen(photo.size)

    def resample(self, photo: Photo, size: tuple[int, int]) -> Tensor:
        """All of a photograph in another height and width, as the network sees colours: float32 (1, C, h, w) in [0, 1].

        Raises ImageError for one that has other channels."""
        return resample(photo, size, channels=self.channels, mode=self.interpolation, antialias=self.antialias)

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


def parse_display(display: Any) -> tuple[int, ...] | None:
    """The channels to draw from one number or several; None for None. Raises ParameterError."""
    try:
        return None if display is None else tuple(map(index, [display] if hasattr(display, "__index__") else display))
    except TypeError as error:
        raise ParameterError(f"{_WHAT_DISPLAY_IS}, got {display!r}") from error


def _check_display(display: tuple[int, ...], channels: int) -> None:
    if len(display) not in (1, 3):
        raise ParameterError(f"{_WHAT_DISPLAY_IS}, got {display}")
    if not 0 <= min(display) <= max(display) < channels:
        raise ParameterError(f"display names channels 0 to {channels - 1}, counted from 0, got {display}")


_WHAT_DISPLAY_IS = "display is three channels, drawn as red, green and blue, or one, drawn in grey"


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ParameterError for a mean outside [0, 1], where images lie, and for a std that is not positive.

    Numbers for pixels from 0 to 255 would make nearly the same constant of every image."""
    if not all(0 < each < inf for each in std):
        raise ParameterError(f"std must be positive, got {tuple(std)}")
    if all(0 <= each <= 1 for each in mean):
        return
    said = f"mean lies in [0, 1], as the values of images do, got {tuple(mean)}"
    if not all(0 <= each <= _LEVELS for each in mean):
        raise ParameterError(f"{said}. Give the mean of images whose black is 0 and whose white is 1")
    scaled = f"mean={_divide(mean)}"
    if min(std) >= 1:  # (255 x - mean) / std = (x - mean / 255) / (std / 255)
        scaled += f", std={_divide(std)}"
    raise ParameterError(f"{said}. If these are numbers for pixels from 0 to 255, divide by 255: {scaled}")


def _divide(values: Sequence[float]) -> str:
    """Values for pixels from 0 to 255 as those for pixels in [0, 1], in four digits."""
    return f"({', '.join(f'{value / _LEVELS:.4g}' for value in values)}{',' * (len(values) == 1)})"


def parse_per_channel(name: str, values: Sequence[float] | None, default: float, channels: int) -> tuple[float, ...]:
    if not hasattr(channels, "__index__"):
        raise ParameterError(f"channels is a whole number, such as 3 for RGB, got {channels!r}")
    try:
        return tuple(map(float, values)) if values is not None else (default,) * channels
    except TypeError as error:
        raise ParameterError(f"{name} is a sequence of {channels} numbers, got {values!r}") from error
