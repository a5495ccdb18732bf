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
    """Two rectangles of the input for each element of a tensor: what it sees, and what it would see with padding.

    edges: eight tensors of the same shape as the tensor (expanded where their values repeat). The first four are top,
        left, -bottom, -right of the rectangle within the image; the other four are the same as if the padding were part
        of the image. Bottom and right are negated so that the union of rectangles is always a minimum. An element that
        sees nothing has infinity everywhere.
    step: (down, across), how far apart the rectangles with padding of neighbouring elements lie, in px.
    """

    edges: tuple[Tensor, ...]
    step: tuple[float, float]

    def map_edges(self, change: Callable[[Tensor], Tensor]) -> Bounds:
        """These bounds with the same change made to all eight edges."""
        return replace(self, edges=tuple(map(change, self.edges)))

    def scale_step(self, down: float, across: float) -> Bounds:
        """These bounds with the steps between neighbours multiplied by two factors."""
        return replace(self, step=(self.step[0] * down, self.step[1] * across))

    def gather(self, axis: int, taps: Tensor) -> Bounds:
        """The bounds of outputs that each read several places along one of the last two axes.

        axis: -2 for rows, -1 for columns.
        taps: (outputs, reads), the indices that each output reads. Those beyond the ends lie in the padding, and those
            that are no whole numbers are ignored (a transposed convolution with a stride has such).
        """
        n = self.edges[0].shape[axis]
        inside = taps.clamp(0, n - 1)
        shifts = [self._shift(i, axis, taps - inside).masked_fill(taps % 1 != 0, inf) for i in range(8)]
        return replace(
            self, edges=tuple(_gather(e, axis, inside.long(), s) for e, s in zip(self.edges, shifts, strict=True))
        )

    def _shift(self, i: int, axis: int, beyond: Tensor) -> Tensor:
        """How far edge `i` moves for taps that lie so many places beyond the end.

        Edges within the image (the first four) do not see padding: infinity. Those with padding go on in steps."""
        if i < 4:
            return torch.where(beyond == 0, 0.0, inf)
        moves = i % 2 == axis + 2  # rows move top and bottom, columns move left and right
        return beyond * (self.step[i % 2] if moves else 0.0) * (1 if i % 4 < 2 else -1)


def bound_input(shape: Shape) -> Bounds:
    """The bounds of an image batch (N, C, H, W): each pixel sees itself."""
    rows = torch.arange(shape[2], dtype=torch.float32).view(1, 1, -1, 1).expand(tuple(shape))  # (N, C, H, W)
    columns = torch.arange(shape[3], dtype=torch.float32).expand(tuple(shape))  # (N, C, H, W)
    return Bounds((rows, columns, -rows - 1, -columns - 1) * 2, (1.0, 1.0))


def bound_nothing(shape: Shape) -> Bounds:
    """The bounds of a tensor that does not depend on the input."""
    return Bounds((torch.tensor(inf).expand(tuple(shape)),) * 8, (0.0, 0.0))


def join(parts: Iterable[Bounds], shape: Shape) -> Bounds:
    """The union of several bounds that broadcast to a shape."""
    first, *others = parts
    if not others and tuple(first.edges[0].shape) == tuple(shape):
        return first
    every = [first, *others]
    edges = (reduce(torch.minimum, [compact(p.edges[i]) for p in every]).expand(tuple(shape)) for i in range(8))
    return Bounds(tuple(edges), (max(p.step[0] for p in every), max(p.step[1] for p in every)))


def take_minimum(edge: Tensor, dims: Sequence[int]) -> Tensor:
    """An edge's minimum along some axes, which stay with length 1."""
    return compact(edge, dims).amin(tuple(dims), keepdim=True)


def _gather(edge: Tensor, axis: int, indices: Tensor, shift: Tensor) -> Tensor:
    """For each output along an axis, the minimum of an edge over what it reads; indices, shift: (outputs, reads)."""
    shape = [*edge.shape]
    shape[axis] = len(indices)
    if edge.stride(axis) == 0 and not shift.amin(1).any():  # the same wherever it is read
        return compact(edge).expand(tuple(shape))
    gathered = compact(edge).movedim(axis, -1)
    gathered = gathered.expand(*gathered.shape[:-1], edge.shape[axis])[..., indices] + shift  # (..., outputs, reads)
    return gathered.amin(-1).movedim(-1, axis).expand(tuple(shape))
