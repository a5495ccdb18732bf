"""Parametrizations: how pictures come from the parameters that are optimised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from vizcnn.ascent.colours import mix_colours
from vizcnn.ascent.rng import Rng
from vizcnn.ascent.spectrum import compute_frequencies, load_spectrum

Shape = tuple[int, int, int]
"""Channels, height and width of a picture."""


class Parametrization(Protocol):
    """What a recipe needs to know of its pictures: how they begin, and how they come from their parameters."""

    def initialize(self, shape: Shape, rng: Rng) -> Tensor:
        """The parameters (N, ...) of N pictures to begin with, noise for each."""
        ...

    def render(self, parameters: Tensor, shape: Shape) -> Tensor:
        """The pictures (N, C, H, W) in [0, 1], differentiable with respect to their parameters."""
        ...


@dataclass(frozen=True)
class Pixels:
    """x = p: every pixel is a parameter of its own. The loop keeps them in [0, 1].

    spread: standard deviation of the noise about mid-grey to begin with.
    """

    spread: float = 0.04

    def initialize(self, shape: Shape, rng: Rng) -> Tensor:
        return (0.5 + self.spread * rng.normal(*shape)).clamp(0, 1)  # (N, C, H, W)

    def render(self, parameters: Tensor, shape: Shape) -> Tensor:  # noqa: ARG002 - the common form
        return parameters


@dataclass(frozen=True)
class Fourier:
    """x = sigmoid(M irfft2(p / f) / 4): parameters are the amplitudes of waves, and those of low frequency f weigh
    more, as in photographs (Olah et al. 2017).

    M mixes independent colours. Without the 1 / f, fine grain grows fastest and the picture becomes noise.

    spread: standard deviation of the parameters to begin with. decorrelated: colours vary together as in photographs;
        otherwise M is the identity.
    """

    spread: float = 0.01
    decorrelated: bool = True

    def initialize(self, shape: Shape, rng: Rng) -> Tensor:
        channels, height, width = shape
        return self.spread * rng.normal(channels, height, width // 2 + 1, 2)  # (N, C, H, W//2+1, real and imaginary)

    def render(self, parameters: Tensor, shape: Shape) -> Tensor:
        _, height, width = shape
        scaled = parameters / compute_frequencies(height, width, parameters)[..., None]
        waves = torch.view_as_complex(scaled.contiguous())  # (N, C, H, W//2+1)
        plain = torch.fft.irfft2(waves, s=(height, width), norm="ortho") / 4  # (N, C, H, W)
        return torch.sigmoid(mix_colours(plain) if self.decorrelated else plain)


@dataclass(frozen=True)
class Maco:
    """x = sigmoid(M irfft2(A e^ip)): only the phases p of waves are optimised; their amplitudes A are those of real
    images (Fel et al. 2023).

    like: whose amplitudes: a folder of images, the name of a bundled data set (`tiny`, `mnist`), or `natural`
        (inversely proportional to the frequency; Field 1987).
    """

    like: str = "natural"

    def initialize(self, shape: Shape, rng: Rng) -> Tensor:
        channels, height, width = shape
        return rng.normal(channels, height, width // 2 + 1)  # (N, C, H, W//2+1)

    def render(self, parameters: Tensor, shape: Shape) -> Tensor:
        phases = _make_hermitian(_standardise(parameters), shape[2])  # (N, C, H, W//2+1)
        amplitudes, contrast = _send_spectrum(self.like, shape, phases.dtype, phases.device)
        waves = torch.polar(amplitudes.expand_as(phases).contiguous(), phases)
        plain = torch.fft.irfft2(waves, s=shape[1:])  # (N, C, H, W)
        return torch.sigmoid(mix_colours(_standardise(plain) * contrast))


@lru_cache(maxsize=16)
def _send_spectrum(like: str, shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float]:
    """The spectrum, sent to the device once, since every step asks for it."""
    with torch.inference_mode(False):  # what is made in that mode can never be a part of a gradient
        amplitudes, contrast = load_spectrum(like, shape)
        return amplitudes.to(device, dtype), contrast


def _make_hermitian(phases: Tensor, width: int) -> Tensor:
    """Phases (N, C, H, W//2+1) such that the inverse transform keeps every amplitude.

    In the first column, and in the last of an even width, waves k and -k are one; a real picture gives them opposite
    phases, and whatever is not so would be lost to both.
    """
    mirrored = phases.flip(2).roll(1, 2)  # at k the phase of -k
    paired = torch.zeros(phases.shape[3], dtype=torch.bool, device=phases.device)  # (W//2+1,) columns that hold both
    paired[0] = True
    paired[-1] |= width % 2 == 0
    return torch.where(paired, (phases - mirrored) / 2**0.5, phases)


def _standardise(values: Tensor) -> Tensor:
    """Each picture's values (N, C, H, W) with mean 0 and standard deviation 1."""
    centred = values - values.mean((1, 2, 3), keepdim=True)
    return centred / (centred.std((1, 2, 3), keepdim=True) + 1e-4)
