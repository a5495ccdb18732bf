"""Statistics of a layer's output for one batch, which a scan takes while the network runs, so that it keeps no maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rank = Literal["max", "mean", "sum"]

_STEPS = 2  # bins per doubling
_OCTAVES = 8  # doublings above and below 1
LEVELS = 2 * _OCTAVES * _STEPS + 1
"""The number of bins for values above zero: one between each two edges, and one for all beyond the last."""
BINS = 2 * LEVELS + 1
"""The number of all bins: as many below zero as above, and one for values that are nearly zero."""

_SHIFT = 22  # drops all bits of a float32 but its exponent and the first bit of the fraction
_CACHED = 2**20  # numbers that stay in a processor's cache
_FIRST = (127 - _OCTAVES) * _STEPS


@dataclass(frozen=True)
class BatchStatistics:
    """What a layer's C channels give for the N usable images of a batch: arrays (N, C) unless said otherwise.

    kept: int64 (N,), the images' indices in the batch. Images with NaN or infinity anywhere in the layer are left out.
    score: float32, what images are ranked by. lowest, highest: float32, over a channel's places (y, x).
    sums, squares: of a channel's activations and of their squares. zeros: how many of them are exactly zero.
    places: the number of places of a channel.
    entrants: int64 (M, 2), image and channel of the scores above the threshold.
    at: int64 (M,), the place y * w + x of each entrant's largest activation, the first of equal ones.
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


def compute_statistics(output: Tensor, rank: Rank, threshold: Tensor) -> BatchStatistics:
    """The statistics of a layer's output (B, C, h, w) or (B, C).

    threshold: (C,), the scores above which an image enters the best of a channel."""
    maps = output.detach().float()
    maps = maps.flatten(2) if maps.dim() > 2 else maps[:, :, None]  # (B, C, places)
    reduced = _reduce(maps)  # (5, B, C)
    kept = reduced[:2].isfinite().all(0).all(1).nonzero()[:, 0]
    if len(kept) < len(maps):
        maps, reduced = maps[kept], reduced[:, kept]
    highest, lowest, sums, norms, zeros = reduced
    score = {"max": highest, "sum": sums, "mean": sums / maps.shape[2]}[rank]
    entrants = (score > threshold.to(score.device)).nonzero()
    return BatchStatistics(
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


def _reduce(maps: Tensor) -> Tensor:
    """For each image and channel the maximum, minimum, sum, L2 norm and number of zeros: (5, B, C).

    On a processor a few images at a time: they stay in its cache, so that only the first reduction waits for memory."""
    together = len(maps) if maps.is_cuda else max(1, _CACHED // maps[0].numel())
    scratch = torch.empty_like(maps[:together])
    return torch.cat([_reduce_part(part, scratch[: len(part)]) for part in maps.split(together)], 1)


def _reduce_part(maps: Tensor, scratch: Tensor) -> Tensor:
    highest, lowest = maps.amax(2), maps.amin(2)
    # zeros are counted as floats: adding up truth values takes ten times longer
    zeros = torch.eq(maps, 0, out=scratch).sum(2) if ((lowest <= 0) & (highest >= 0)).any() else highest.new_zeros(())
    norms = torch.linalg.vector_norm(maps, dim=2)
    return torch.stack([highest, lowest, maps.sum(2), norms, zeros.expand_as(norms)])


def find_bins(values: Tensor) -> Tensor:
    """The bin of each float32 value, int64. Bins are the same for every scan, two per doubling, on both sides of 0."""
    level = (values.abs().view(torch.int32) >> _SHIFT).long() - _FIRST + 1
    return LEVELS + values.sign().long() * level.clamp(0, LEVELS)


def compute_bin_edges() -> Tensor:
    """The edges of the bins, from minus infinity to infinity: float32 (BINS + 1,)."""
    bits = torch.arange(_FIRST, _FIRST + LEVELS, dtype=torch.int32) << _SHIFT
    above = torch.cat([bits.view(torch.float32), torch.tensor([torch.inf], dtype=torch.float32)])
    return torch.cat([-above.flip(0), above])
