"""Bounds: for every element of a tensor, the rectangle of the input that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import inf

import torch
from torch import Tensor

from vizcnn.models.layers.expanded import Shape, compact


@dataclass(frozen=True)
class Bounds:
    """Eight numbers per element, each a tensor of the element's tensor's shape (expanded where they repeat).

    edges: top, left, -bottom, -right of what the element sees, and the same four as if padding were part of the image.
        Bottom and right are negative so that joining rectangles is always the minimum; seeing nothing is infinity.
    step: how far the rectangles of neighbours lie apart, (down, across), for those that padding would have.
    """

    edges: tuple[Tensor, ...]
    step: tuple[float, float]

    def changed(self, change: Callable[[Tensor], Tensor]) -> Bounds:
        """The same change to all eight numbers."""
        return replace(self, edges=tuple(map(change, self.edges)))

    def scaled(self, down: float, across: float) -> Bounds:
        """Neighbours are so many times as far apart."""
        return replace(self, step=(self.step[0] * down, self.step[1] * across))

    def read(self, axis: int, taps: Tensor) -> Bounds:
        """Outputs that read several places along one of the last two axes.

        axis: -2 for rows, -1 for columns.
        taps: (outputs, reads), the places; beyond the ends lies padding, and fractions are read by nobody.
        """
        n = self.edges[0].shape[axis]
        inside = taps.clamp(0, n - 1)
        cost = [self._cost(i, axis, taps - inside).masked_fill(taps % 1 != 0, inf) for i in range(8)]
        return replace(
            self, edges=tuple(_read(e, axis, inside.long(), c) for e, c in zip(self.edges, cost, strict=True))
        )

    def _cost(self, i: int, axis: int, beyond: Tensor) -> Tensor:
        """What an edge gains by reading so far beyond the end."""
        if i < 4:
            return torch.where(beyond == 0, 0.0, inf)
        moves = i % 2 == axis + 2  # rows move top and bottom, columns move left and right
        return beyond * (self.step[i % 2] if moves else 0.0) * (1 if i % 4 < 2 else -1)


def of_input(shape: Shape) -> Bounds:
    """The bounds of an image batch (N, C, H, W): each pixel is its own."""
    rows = torch.arange(shape[2], dtype=torch.float32).view(1, 1, -1, 1).expand(tuple(shape))  # (N, C, H, W)
    columns = torch.arange(shape[3], dtype=torch.float32).expand(tuple(shape))  # (N, C, H, W)
    return Bounds((rows, columns, -rows - 1, -columns - 1) * 2, (1.0, 1.0))


def of_nothing(shape: Shape) -> Bounds:
    """The bounds of a tensor that does not depend on the input."""
    return Bounds((torch.tensor(inf).expand(tuple(shape)),) * 8, (0.0, 0.0))


def hull(parts: Iterable[Bounds], shape: Shape) -> Bounds:
    """Bounds of the given shape around several ones that broadcast to it."""
    first, *others = parts
    if not others and tuple(first.edges[0].shape) == tuple(shape):
        return first
    every = [first, *others]
    edges = (reduce(torch.minimum, [compact(p.edges[i]) for p in every]).expand(tuple(shape)) for i in range(8))
    return Bounds(tuple(edges), (max(p.step[0] for p in every), max(p.step[1] for p in every)))


def least(edge: Tensor, dims: Sequence[int]) -> Tensor:
    """The minimum along some axes, which stay with length 1."""
    return compact(edge, dims).amin(tuple(dims), keepdim=True)


def _read(edge: Tensor, axis: int, index: Tensor, cost: Tensor) -> Tensor:
    shape = [*edge.shape]
    shape[axis] = len(index)
    if edge.stride(axis) == 0 and not cost.amin(1).any():  # the same wherever it is read
        return compact(edge).expand(tuple(shape))
    read = compact(edge).movedim(axis, -1)
    read = read.expand(*read.shape[:-1], edge.shape[axis])[..., index] + cost  # (..., outputs, reads)
    return read.amin(-1).movedim(-1, axis).expand(tuple(shape))
