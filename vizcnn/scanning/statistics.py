"""Glances: what a scan keeps of a layer's output for one batch, taken while the network runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rank = Literal["max", "mean", "sum"]

_STEPS = 2  # bins per doubling
_OCTAVES = 8  # doublings above and below 1
LEVELS = 2 * _OCTAVES * _STEPS + 1
"""Bins for values above zero: one between each two edges, and one for all beyond the last."""
BINS = 2 * LEVELS + 1
"""The same below zero, and one for what is nearly zero."""

_SHIFT = 22  # leaves of a float32 its exponent and the first bit of the fraction
_CACHED = 2**20  # numbers that stay in a processor's cache
_FIRST = (127 - _OCTAVES) * _STEPS


@dataclass(frozen=True)
class Glance:
    """A layer's N images of a batch, image by image and channel by channel: (N, C).

    kept: int64 (N,), their places in the batch; images with NaN or infinity anywhere in the layer are left out.
    score: float32, what images are ranked by. lowest, highest: float32. sums, squares, zeros: over a channel's places.
    places: how many places (y, x) a channel has.
    entrants: int64 (M, 2), image and channel where the score is above the threshold.
    at: int64 (M,), the place y * w + x of the largest activation there, the first of equal ones.
    """

    kept: Tensor
    score: Tensor
    lowest: Tensor
    highest: Tensor
    sums: Tensor
    squares: Tensor
    zeros: Tensor
    places: int
    entrants: Tensor
    at: Tensor


def glance(output: Tensor, rank: Rank, threshold: Tensor) -> Glance:
    """Look at a layer's output (B, C, h, w) or (B, C). threshold: (C,), the scores that images must exceed to count."""
    maps = output.detach().float()
    maps = maps.flatten(2) if maps.dim() > 2 else maps[:, :, None]  # (B, C, places)
    reduced = _reduced(maps)  # (5, B, C)
    kept = reduced[:2].isfinite().all(0).all(1).nonzero()[:, 0]
    if len(kept) < len(maps):
        maps, reduced = maps[kept], reduced[:, kept]
    highest, lowest, sums, norms, zeros = reduced
    score = {"max": highest, "sum": sums, "mean": sums / maps.shape[2]}[rank]
    entrants = (score > threshold.to(score.device)).nonzero()
    return Glance(
        kept=kept,
        score=score,
        lowest=lowest,
        highest=highest,
        sums=sums,
        squares=norms.square(),
        zeros=zeros,
        places=maps.shape[2],
        entrants=entrants,
        at=maps[entrants[:, 0], entrants[:, 1]].argmax(1),
    )


def _reduced(maps: Tensor) -> Tensor:
    """Of each image and channel the highest, the lowest, the sum, the L2 norm, and how many are zero: (5, B, C).

    On a processor a few images at a time, so that only the first look at them waits for memory."""
    together = len(maps) if maps.is_cuda else max(1, _CACHED // maps[0].numel())
    scratch = torch.empty_like(maps[:together])
    return torch.cat([_looked(part, scratch[: len(part)]) for part in maps.split(together)], 1)


def _looked(maps: Tensor, scratch: Tensor) -> Tensor:
    highest, lowest = maps.amax(2), maps.amin(2)
    # zeros are counted as floats: adding up truth values takes ten times longer
    zeros = torch.eq(maps, 0, out=scratch).sum(2) if ((lowest <= 0) & (highest >= 0)).any() else highest.new_zeros(())
    norms = torch.linalg.vector_norm(maps, dim=2)
    return torch.stack([highest, lowest, maps.sum(2), norms, zeros.expand_as(norms)])


def binned(values: Tensor) -> Tensor:
    """The bin of each float32 value, int64: two per doubling, symmetric about zero, the same for every scan."""
    level = (values.abs().view(torch.int32) >> _SHIFT).long() - _FIRST + 1
    return LEVELS + values.sign().long() * level.clamp(0, LEVELS)


def edges() -> Tensor:
    """Where the bins begin and end: float32 (BINS + 1,), from minus infinity to infinity."""
    bits = torch.arange(_FIRST, _FIRST + LEVELS, dtype=torch.int32) << _SHIFT
    above = torch.cat([bits.view(torch.float32), torch.tensor([torch.inf], dtype=torch.float32)])
    return torch.cat([-above.flip(0), above])
