"""Random numbers of which each picture has its own, so that it comes out the same alone and in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Rng:
    """A random generator per picture.

    A picture's numbers depend on the seed and on its key alone, not on the batch that it is in. They are drawn on the
    CPU, so that they do not depend on the device either.

    keys: one text for each of N pictures. like: a tensor of the dtype and on the device that the numbers shall have.
    """

    def __init__(self, seed: int, keys: Sequence[str], like: Tensor) -> None:
        self._generators = [torch.Generator().manual_seed(_hash_seed(seed, key)) for key in keys]
        self._like = like

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (N, *shape)."""
        return self._stack([torch.randn(shape, generator=one) for one in self._generators])

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (N, *shape), uniform in [-1, 1)."""
        return self._stack([torch.rand(shape, generator=one) * 2 - 1 for one in self._generators])

    def _stack(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).to(self._like)


def _hash_seed(seed: int, key: str) -> int:
    """A seed of 63 bits, which is what torch takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) >> 1
