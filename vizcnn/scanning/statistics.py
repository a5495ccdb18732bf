"""Statistics of a layer's output for one batch, which a scan takes while the network runs, so that it keeps no maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
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
_NOTHING = torch.tensor([-torch.inf, torch.inf, 0, 0, 0])[:, None, None]  # the table of no places
_FIRST = (127 - _OCTAVES) * _STEPS


@dataclass(frozen=True)
class BatchStatistics:
    """What a layer's C channels give for the B images of a batch, in main memory.

    usable: bool (B,). Images with NaN or infinity anywhere in the layer are not.
    score: float32 (B, C), what images are ranked by; minus infinity for images that are not usable.
    table: float32 (5, B, C): of a channel's places, the largest and the smallest activation, the sum of all and of
        their squares, and how many are exactly zero. For images that are not usable, what no places would give.
    places: the number of places of a channel.
    entrants: int64 (M,), the scores above the threshold, as image * C + channel.
    at: int64 (M,), the place y * w + x of each entrant's largest activation, the first of equal ones.
    """

    usable: Tensor
    score: Tensor
    table: Tensor
    places: int
    entrants: Tensor
    at: Tensor

    @property
    def highest(self) -> Tensor:
        """The largest activation of each channel, (B, C)."""
        return self.table[0]

    @property
    def sums(self) -> Tensor:
        """The sum of each channel's activations, (B, C)."""
        return self.table[2]


def make_scratch() -> Tensor:
    """Memory for `compute_statistics`, which a scan makes once."""
    return torch.empty(_CACHED, dtype=torch.float32)


def compute_statistics(output: Tensor, rank: Rank, threshold: Tensor, scratch: Tensor) -> BatchStatistics:
    """The statistics of a layer's output (B, C, h, w) or (B, C).

    threshold: (C,), the scores above which an image enters the best of a channel. scratch: from `make_scratch`."""
    maps = output.detach()
    maps = maps.flatten(2) if maps.dim() > 2 else maps[:, :, None]  # (B, C, places)
    table = _reduce(maps, scratch)
    score = table[0] if rank == "max" else table[2] if rank == "sum" else table[2] / maps.shape[2]
    usable = torch.ones(len(maps), dtype=torch.bool)
    if not (table[0].amax() < torch.inf and table[1].amin() > -torch.inf):  # also where one of them is NaN
        usable = table[:2].isfinite().all(0).all(1)
        table[:, ~usable] = _NOTHING
        score = score.masked_fill(~usable[:, None], -torch.inf)
    entrants = torch.from_numpy(np.flatnonzero((score > threshold).numpy()))  # torch's takes five times as long
    return BatchStatistics(usable, score, table, maps.shape[2], entrants, _find_places(maps, entrants))


def _find_places(maps: Tensor, entrants: Tensor) -> Tensor:
    """Where these channels of these images are largest, int64 (M,). Later in a scan there are mostly none of them."""
    if not len(entrants):
        return entrants
    parts = entrants.to(maps.device).split(max(1, _CACHED // maps.shape[2]))
    return torch.cat([_find_largest(_pick(maps, part)) for part in parts]).cpu()


def _pick(maps: Tensor, entrants: Tensor) -> Tensor:
    """These channels of these images, (M, places)."""
    if maps.is_contiguous():  # whole rows are copied, in a fifth of the time
        return maps.flatten(0, 1).index_select(0, entrants)
    return maps[entrants // maps.shape[1], entrants % maps.shape[1]]


def _find_largest(rows: Tensor) -> Tensor:
    """Where each row is largest, the first place of equal ones, int64."""
    if rows.is_cpu:  # where torch's takes ten times as long
        return torch.from_numpy(rows.float().numpy().argmax(1))
    return rows.argmax(1)


def _reduce(maps: Tensor, scratch: Tensor) -> Tensor:
    """The table of `BatchStatistics`, (5, B, C), in main memory.

    On a processor a few rows at a time: they stay in its cache, so that only the first look waits for memory."""
    rows = maps.flatten(0, 1) if maps.is_contiguous() else maps  # (B * C, places), or (B, C, places)
    table = torch.empty(5, *rows.shape[:-1], dtype=torch.float32, device=maps.device)
    together = max(1, _CACHED // rows[0].numel()) if maps.is_cpu else len(rows)
    for start in range(0, len(rows), together):
        part = rows[start : start + together].float()
        fits = part.is_cpu and part.is_contiguous() and part.numel() <= len(scratch)
        room = scratch[: part.numel()].view_as(part) if fits else torch.empty_like(part)
        _look(part, room, table[:, start : start + together])
    return table.view(5, *maps.shape[:2]).cpu()  # moved at once, before anything is read


def _look(maps: Tensor, room: Tensor, table: Tensor) -> None:
    """Fill in the table of these maps (..., places). room: of their shape, for what is in between."""
    highest, lowest, sums, squares, zeros = table
    torch.amax(maps, -1, out=highest)
    torch.amin(maps, -1, out=lowest)
    torch.sum(maps, -1, out=sums)
    torch.linalg.vector_norm(maps, dim=-1, out=squares)
    squares.square_()
    # zeros are counted as floats: adding up truth values takes ten times longer, and asking a device would wait
    if not maps.is_cpu or ((lowest <= 0) & (highest >= 0)).any():
        torch.sum(torch.eq(maps, 0, out=room), -1, out=zeros)
    else:
        zeros.zero_()


def find_bins(values: Tensor) -> Tensor:
    """The bin of each float32 value, int64. Bins are the same for every scan, two per doubling, on both sides of 0."""
    level = (values.abs().view(torch.int32) >> _SHIFT).long() - _FIRST + 1
    return LEVELS + values.sign().long() * level.clamp(0, LEVELS)


def compute_bin_edges() -> Tensor:
    """The edges of the bins, from minus infinity to infinity: float32 (BINS + 1,)."""
    bits = torch.arange(_FIRST, _FIRST + LEVELS, dtype=torch.int32) << _SHIFT
    above = torch.cat([bits.view(torch.float32), torch.tensor([torch.inf], dtype=torch.float32)])
    return torch.cat([-above.flip(0), above])
