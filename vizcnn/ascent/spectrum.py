"""Amplitude spectra: how strong waves of each frequency are in real images.

They are spectra of logits, log(x / (1 - x)) of pixels x in [0, 1], since a sigmoid ends the way to a picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.ascent.colours import build_colour_matrix
from vizcnn.errors import ParameterError, did_you_mean
from vizcnn.inputs.images import image_files, open_photo
from vizcnn.inputs.resampling import resample

SHIPPED = Path(__file__).parent / "spectra.safetensors"
"""The file with the spectra of bundled data sets; `ship_spectra` makes it."""
_NATURAL_CONTRAST = 1.0
_ENDS = 0.02  # a pixel's logit is taken no nearer to black or white
_MOST = 2000  # images of a folder


@cache
def load_spectrum(like: str, shape: tuple[int, int, int]) -> tuple[Tensor, float]:
    """The amplitudes (C, H, W//2+1) of waves in independent colours, and the standard deviation of their pixels.

    like: a folder of images, a bundled data set or `natural`. Raises ParameterError and ImageError.
    """
    if like == "natural":
        return _make_natural_spectrum(shape), _NATURAL_CONTRAST
    amplitudes, contrast = _read_shipped(like) if like in list_shipped() else _measure_folder(like, shape)
    return _resample(_match_channels(amplitudes, shape[0]), shape[1:]), contrast


@cache
def list_shipped() -> tuple[str, ...]:
    """The data sets whose spectrum comes with the package."""
    from safetensors import safe_open

    with safe_open(SHIPPED, "pt") as file:
        return tuple(sorted(file.keys()))


def _read_shipped(name: str) -> tuple[Tensor, float]:
    from safetensors import safe_open

    with safe_open(SHIPPED, "pt") as file:
        return file.get_tensor(name).float(), float(file.metadata()[name])


def _make_natural_spectrum(shape: tuple[int, int, int]) -> Tensor:
    """Amplitudes inversely proportional to the frequency (Field 1987), (C, H, W//2+1)."""
    channels, height, width = shape
    falling = 1 / compute_frequencies(height, width, torch.empty(0))
    return falling.expand(channels, -1, -1)  # (C, H, W//2+1)


def compute_frequencies(height: int, width: int, like: Tensor) -> Tensor:
    """The frequency of each coefficient of torch.fft.rfft2, (H, W//2+1), in cycles per pixel: sqrt(fy^2 + fx^2).

    The lowest is that of one wave across the picture, so that one can divide by it. like: of the dtype and device."""
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return torch.hypot(down, across).clamp(min=1 / max(height, width)).to(like)


def _measure_folder(folder: str, shape: tuple[int, int, int]) -> tuple[Tensor, float]:
    if not Path(folder).is_dir():
        known = ["natural", *list_shipped()]
        raise ParameterError(
            f"a spectrum is that of a folder of images or one of {', '.join(known)}, got {folder!r}."
            f"{did_you_mean(folder, known)}"
        )
    files = image_files(folder)[:_MOST]
    return measure_spectrum((_open_stretched(file, shape) for file in files), shape)


def _open_stretched(file: str, shape: tuple[int, int, int]) -> Tensor:
    """An image (C, H, W) in [0, 1], stretched to the shape."""
    return resample(open_photo(file), shape[1:], channels=1 if shape[0] == 1 else 3)[0]


def measure_spectrum(images: Iterable[Tensor], shape: tuple[int, int, int]) -> tuple[Tensor, float]:
    """The mean amplitudes (C, H, W//2+1) of images (C, H, W) in [0, 1], and their contrast, in independent colours."""
    independent = torch.linalg.inv(build_colour_matrix(shape[0]))
    amplitudes, variance, count = torch.zeros(shape[0], shape[1], shape[2] // 2 + 1), 0.0, 0
    for image in images:
        plain = torch.einsum("ij,jhw->ihw", independent, image.clamp(_ENDS, 1 - _ENDS).logit())  # (C, H, W)
        centred = plain - plain.mean()
        amplitudes += torch.fft.rfft2(centred).abs()
        variance, count = variance + float(centred.square().mean()), count + 1
    return amplitudes / count, (variance / count) ** 0.5


def _match_channels(amplitudes: Tensor, channels: int) -> Tensor:
    """Of grey images for a colour network the same amplitudes in brightness; of colour images for a grey network that
    of brightness."""
    if amplitudes.shape[0] == channels:
        return amplitudes
    if channels == 1:
        return amplitudes[:1]
    return torch.cat([amplitudes, torch.zeros_like(amplitudes), torch.zeros_like(amplitudes)])


def _resample(amplitudes: Tensor, size: tuple[int, int]) -> Tensor:
    """The amplitudes at the same cycles per pixel for pictures of another size: (C, H, W//2+1)."""
    ordered = torch.fft.fftshift(amplitudes, dim=1)
    scaled = F.interpolate(ordered[None], (size[0], size[1] // 2 + 1), mode="bilinear", align_corners=False)[0]
    moved: Tensor = torch.fft.ifftshift(scaled, dim=1)
    return moved
