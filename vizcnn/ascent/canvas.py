"""Canvases: how pictures come from the numbers that are optimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vizcnn.ascent.colours import coloured
from vizcnn.ascent.spectrum import frequencies, spectrum
from vizcnn.ascent.streams import Streams

Shape = tuple[int, int, int]
"""Channels, height and width of a picture."""


class Canvas(Protocol):
    """start: numbers (N, ...) to begin with. pictures: (N, C, H, W) in [0, 1] from numbers, differentiable."""

    def start(self, shape: Shape, streams: Streams) -> Tensor: ...

    def pictures(self, numbers: Tensor, shape: Shape) -> Tensor: ...


@dataclass(frozen=True)
class Pixels:
    """Every pixel is a number of its own; the loop keeps them in [0, 1].

    spread: standard deviation of the noise about mid-grey to begin with.
    """

    spread: float = 0.04

    def start(self, shape: Shape, streams: Streams) -> Tensor:
        return (0.5 + self.spread * streams.normal(*shape)).clamp(0, 1)  # (N, C, H, W)

    def pictures(self, numbers: Tensor, shape: Shape) -> Tensor:  # noqa: ARG002 - the canvases' common form
        return numbers


@dataclass(frozen=True)
class Fourier:
    """Numbers are the amplitudes of waves, those of long waves weighing more, as in photographs (Olah et al. 2017).

    spread: standard deviation of the amplitudes to begin with. decorrelated: colours vary as in photographs.
    """

    spread: float = 0.01
    decorrelated: bool = True

    def start(self, shape: Shape, streams: Streams) -> Tensor:
        channels, height, width = shape
        return self.spread * streams.normal(channels, height, width // 2 + 1, 2)  # (N, C, H, W//2+1, 2)

    def pictures(self, numbers: Tensor, shape: Shape) -> Tensor:
        _, height, width = shape
        waves = torch.view_as_complex((numbers / frequencies(height, width, numbers)[..., None]).contiguous())
        plain = torch.fft.irfft2(waves, s=(height, width), norm="ortho") / 4  # (N, C, H, W)
        return torch.sigmoid(coloured(plain) if self.decorrelated else plain)


@dataclass(frozen=True)
class Maco:
    """Only where waves lie is optimised; how strong they are is that of real images (Fel et al. 2023).

    like: whose amplitudes: a folder of images, the name of a bundled data set (`tiny`, `mnist`), or `natural`
        (inversely proportional to the frequency; Field 1987).
    """

    like: str = "natural"

    def start(self, shape: Shape, streams: Streams) -> Tensor:
        channels, height, width = shape
        return streams.normal(channels, height, width // 2 + 1)  # (N, C, H, W//2+1)

    def pictures(self, numbers: Tensor, shape: Shape) -> Tensor:
        amplitudes, contrast = spectrum(self.like, shape)
        phases = _hermitian(_standardised(numbers), shape[2])
        waves = torch.polar(amplitudes.to(phases).expand_as(phases).contiguous(), phases)
        plain = torch.fft.irfft2(waves, s=shape[1:])  # (N, C, H, W)
        return torch.sigmoid(coloured(_standardised(plain) * contrast))


def _hermitian(phases: Tensor, width: int) -> Tensor:
    """Phases (N, C, H, W//2+1) such that the inverse transform keeps every amplitude.

    In the first column, and in the last of an even width, waves k and -k are one; a real picture gives them opposite
    phases, and whatever is not so would be lost to both.
    """
    mirrored = phases.flip(2).roll(1, 2)  # at k the phase of -k
    twins = torch.zeros(phases.shape[3], dtype=torch.bool, device=phases.device)
    twins[0] = True
    twins[-1] |= width % 2 == 0
    return torch.where(twins, (phases - mirrored) / 2**0.5, phases)


def _standardised(values: Tensor) -> Tensor:
    """Each image's values with mean 0 and standard deviation 1."""
    centred = values - values.mean((1, 2, 3), keepdim=True)
    return centred / (centred.std((1, 2, 3), keepdim=True) + 1e-4)
