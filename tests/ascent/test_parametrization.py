"""How pictures come from their parameters, against explicit sums of waves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from support import noise
from torch import Tensor

from vizcnn.ascent import Fourier, Maco
from vizcnn.ascent.spectrum import load_spectrum
from vizcnn.errors import ParameterError

Array = npt.NDArray[np.float64]
SHAPES = [(1, 6, 9), (3, 7, 8), (3, 5, 5), (1, 8, 4)]
LUCID = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])  # as published
COLOURS = LUCID / np.sqrt((LUCID**2).sum(0)).max()


def logits_of(pictures: Tensor) -> Array:
    """Independent colours (N, C, H, W) from before the sigmoid and the mixing of colours."""
    mixed: Array = torch.logit(pictures).numpy()
    return np.einsum("ij,njhw->nihw", np.linalg.inv(COLOURS), mixed) if mixed.shape[1] == 3 else mixed


def waves(numbers: Array, height: int, width: int) -> Array:
    """One channel (H, W) as an explicit sum of cosines and sines, from numbers (H, W//2+1, 2)."""
    down, across = np.mgrid[0:height, 0:width]
    total = np.zeros((height, width))
    for k in range(height):
        for j in range(width // 2 + 1):
            signed = k if 2 * k < height else k - height
            frequency = max(math.hypot(signed / height, j / width), 1 / max(height, width))
            angle = 2 * math.pi * (k * down / height + j * across / width)
            twice = 1 if j == 0 or 2 * j == width else 2  # each wave and its conjugate
            real, imaginary = numbers[k, j] / frequency
            total += twice * (real * np.cos(angle) - imaginary * np.sin(angle))
    return total / math.sqrt(height * width) / 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decorrelated", [True, False])
def test_a_fourier_picture_is_a_sum_of_waves(shape: tuple[int, int, int], decorrelated: bool) -> None:
    channels, height, width = shape
    numbers = noise(2, channels, height, width // 2 + 1, 2)
    found = Fourier(decorrelated=decorrelated).render(numbers, shape)  # (2, C, H, W)
    plain = np.array([[waves(one.numpy(), height, width) for one in each] for each in numbers])
    mixed = np.einsum("ij,njhw->nihw", COLOURS, plain) if decorrelated and channels == 3 else plain
    np.testing.assert_allclose(found.numpy(), 1 / (1 + np.exp(-mixed)), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_maco_changes_where_waves_lie_and_not_how_strong_they_are(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    numbers = noise(2, channels, height, width // 2 + 1)
    found = np.abs(np.fft.rfft2(logits_of(Maco().render(numbers, shape))))  # (2, C, H, W//2+1)
    wanted = load_spectrum("natural", shape)[0].double().numpy()
    share = (found / wanted).reshape(2, channels, -1)[..., 1:]  # but for the mean
    np.testing.assert_allclose(share, np.broadcast_to(share[:, :1, :1], share.shape), rtol=1e-4)


def test_maco_pictures_differ_by_their_phases() -> None:
    one, other = Maco().render(noise(2, 1, 8, 5), (1, 8, 8))
    assert (one - other).abs().max() > 0.1


def test_maco_keeps_the_amplitudes_of_a_folder_of_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(30, 225, (8, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    found = np.abs(np.fft.rfft2(logits_of(Maco(str(tmp_path)).render(noise(1, 1, 8, 6), (1, 8, 10)))))
    real = pixels / 255
    wanted = np.abs(np.fft.rfft2(np.log(real / (1 - real))))
    share = (found[0, 0] / wanted).flatten()[1:]  # but for the mean
    np.testing.assert_allclose(share, np.full_like(share, share.mean()), rtol=1e-3)


def test_the_contrast_of_a_maco_picture_is_that_of_the_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(110, 150, (8, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    found = logits_of(Maco(str(tmp_path)).render(noise(1, 1, 8, 6), (1, 8, 10)))
    assert found.std() == pytest.approx(np.log(pixels / (255 - pixels)).std(), rel=0.02)


def test_an_unknown_spectrum_names_the_known_ones() -> None:
    with pytest.raises(ParameterError, match=r"natural, mnist, tiny, got 'tinny'. Did you mean 'tiny'?"):
        load_spectrum("tinny", (3, 8, 8))


@pytest.mark.parametrize("like", ["natural", "mnist", "tiny"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_spectrum_fits_every_shape(like: str, shape: tuple[int, int, int]) -> None:
    amplitudes, contrast = load_spectrum(like, shape)
    assert amplitudes.shape == (shape[0], shape[1], shape[2] // 2 + 1)
    assert amplitudes.sum() > 0
    assert contrast > 0
