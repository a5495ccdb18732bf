"""Random numbers of which each image has a stream of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Streams:
    """A stream of random numbers per image. It depends on the seed and on the image's key alone, so that an image
    comes out the same alone and in company; numbers are drawn on the CPU, so that devices agree.

    keys: one text per image.
    """

    def __init__(self, seed: int, keys: Sequence[str], like: Tensor) -> None:
        self._each = [torch.Generator().manual_seed(_seed(seed, key)) for key in keys]
        self._like = like

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (N, *shape)."""
        return self._moved([torch.randn(shape, generator=one) for one in self._each])

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (N, *shape) in [-1, 1)."""
        return self._moved([torch.rand(shape, generator=one) * 2 - 1 for one in self._each])

    def _moved(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).to(self._like)


def _seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) >> 1
