"""Null maps: what a map of this look is worth that knows nothing of the network or the image."""

from __future__ import annotations

import numpy as np

from vizcnn.evaluation.cells import Maps

NULLS = 100


def make_nulls(values: Maps, count: int = NULLS, seed: int = 0) -> Maps:
    """Maps (count, H, W) that look like the map (H, W) and know nothing.

    A tenth are blobs near the middle, where photographs have their objects; a third are the map itself, moved around
    the edges, mirrored and turned; the others have its spectrum with random phases, and its values."""
    rng = np.random.default_rng(seed)
    blobs = [_make_blob(values.shape, rng) for _ in range(count // 10)]
    moved = [_move(values, rng) for _ in range(count // 3)]
    amplitude, ranked = np.abs(np.fft.fft2(values - values.mean())), np.sort(values, axis=None)
    fields = [_make_field(amplitude, ranked, rng) for _ in range(count - len(blobs) - len(moved))]
    return np.stack([*blobs, *moved, *fields])


def make_middle(size: tuple[int, ...]) -> Maps:
    """A blob in the middle of a map of this height and width, its deviation a quarter of the shorter side."""
    return _draw_blob(size, (size[0] / 2, size[1] / 2), 0.25 * min(size))


def compute_percentile(value: float, nulls: Maps) -> float:
    """Of 100 null maps, how many are below the value; ties count half."""
    return 100 * float((nulls < value).sum() + 0.5 * (nulls == value).sum()) / len(nulls)  # 90 is no 89.999


def _make_blob(size: tuple[int, ...], rng: np.random.Generator) -> Maps:
    middle = (0.5 + 0.1 * rng.standard_normal(2)) * size
    return _draw_blob(size, (middle[0], middle[1]), rng.uniform(0.12, 0.35) * min(size))


def _draw_blob(size: tuple[int, ...], middle: tuple[float, float], deviation: float) -> Maps:
    y, x = (np.arange(length) + 0.5 - at for length, at in zip(size, middle, strict=True))
    blob: Maps = np.exp(-(y[:, None] ** 2 + x**2) / (2 * deviation**2))
    return blob


def _move(values: Maps, rng: np.random.Generator) -> Maps:
    height, width = values.shape
    moved = np.roll(values, (int(rng.integers(height)), int(rng.integers(width))), (0, 1))
    moved = moved[:: rng.choice([1, -1]), :: rng.choice([1, -1])]
    return moved.T if height == width and rng.random() < 0.5 else moved


def _make_field(amplitude: Maps, ranked: Maps, rng: np.random.Generator) -> Maps:
    """A field with this spectrum and these values, which are given out by the ranks of random waves."""
    phases = np.exp(1j * np.angle(np.fft.fft2(rng.standard_normal(amplitude.shape))))
    waves = np.fft.ifft2(amplitude * phases).real
    field = np.empty(waves.size)
    field[waves.argsort(axis=None, kind="stable")] = ranked
    return field.reshape(waves.shape)
