"""Rules for operations that read the neighbourhood of a place: convolution, pooling, padding, interpolation."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from vizcnn.models.layers.expanded import Shape, compact
from vizcnn.receptive.bounds import Bounds, least
from vizcnn.receptive.call import Call, Unknown

Pair = tuple[int, int]
AXES = (-2, -1)


class Window(NamedTuple):
    """A window's geometry, (down, across)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    def slid(self, bounds: Bounds, shape: Shape) -> Bounds:
        """The bounds of outputs of this shape when the window slides over the last two axes."""
        for a, axis in enumerate(AXES):
            starts = torch.arange(shape[axis])[:, None] * self.stride[a] - self.padding[a]  # (outputs, 1)
            bounds = bounds.read(axis, (starts + self._offsets(a)).float())
        return bounds.scaled(*self.stride)

    def spread(self, bounds: Bounds, shape: Shape) -> Bounds:
        """The same for a transposed convolution: neighbours among the inputs write `stride` apart."""
        for a, axis in enumerate(AXES):
            ends = torch.arange(shape[axis])[:, None] + self.padding[a]  # (outputs, 1)
            bounds = bounds.read(axis, (ends - self._offsets(a)) / self.stride[a])
        return bounds.scaled(1 / self.stride[0], 1 / self.stride[1])

    def _offsets(self, a: int) -> Tensor:
        return torch.arange(self.kernel[a]) * self.dilation[a]


def convolution(call: Call) -> Bounds:
    weight, groups = call.args["weight"], call.args["groups"]
    if weight.dim() != 4:
        raise Unknown(f"convolution in {weight.dim() - 2} dimensions")
    kernel = (weight.shape[2], weight.shape[3])
    window = Window(kernel, call.pair("stride"), call.pair("padding"), call.pair("dilation"))
    gathered = call.of("input").changed(lambda edge: _per_group(edge, groups))
    found = (window.spread if call.args["transposed"] else window.slid)(gathered, call.shape)
    return found.changed(lambda edge: _from_groups(edge, call.shape))


def _per_group(edge: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) to what each group of channels sees together, (N, groups, H, W); (N, 1, H, W) where all agree."""
    edge = compact(edge, [1])
    if edge.shape[1] == 1:
        return edge
    return least(edge.unflatten(1, (groups, -1)), [2])[:, :, 0]


def _from_groups(edge: Tensor, shape: Shape) -> Tensor:
    n, channels, *space = shape
    groups = edge.shape[1]
    if groups == 1:
        return edge.expand(tuple(shape))
    return edge[:, :, None].expand(n, groups, channels // groups, *space).flatten(1, 2)


def pooled(call: Call) -> Bounds:
    dilation = call.pair("dilation") if "dilation" in call.args else (1, 1)
    window = Window(call.pair("kernel_size"), call.pair("stride", "kernel_size"), call.pair("padding"), dilation)
    return window.slid(call.of("self"), call.shape)


def padded(call: Call) -> Bounds:
    """Padding of the last two axes is like a convolution's; that of other axes sees nothing."""
    pads = list(call.args["pad"])
    if len(pads) > 4:
        return call.of("self").changed(lambda edge: torch.constant_pad_nd(edge, pads, inf))
    top = pads[2] if len(pads) == 4 else 0
    return Window((1, 1), (1, 1), (top, pads[0]), (1, 1)).slid(call.of("self"), call.shape)


def adaptive(call: Call) -> Bounds:
    """Output i of m reads the inputs from floor(i n / m) to ceil((i + 1) n / m)."""
    bounds = call.of("self")
    for axis in AXES:
        bounds = bounds.read(axis, _bins(call.args["self"].shape[axis], call.shape[axis]))
    return resized(call, bounds)


def _bins(n: int, m: int) -> Tensor:
    """Which of n inputs each of m outputs reads, (m, most); the last one is repeated."""
    i = torch.arange(m)[:, None]
    first, last = i * n // m, -(-(i + 1) * n // m) - 1  # (m, 1)
    most = int((last - first).max()) + 1
    return torch.minimum(first + torch.arange(most), last).float()


def resampled(call: Call) -> Bounds:
    """Smooth interpolation; which inputs each output reads is asked of the operation itself."""
    bounds = call.of("self")
    for axis in AXES:
        bounds = bounds.read(axis, _reads(call, axis))
    return resized(call, bounds)


def resized(call: Call, bounds: Bounds) -> Bounds:
    h, w = call.args["self"].shape[-2:]
    return bounds.scaled(h / call.shape[-2], w / call.shape[-1])


def _reads(call: Call, axis: int) -> Tensor:
    """Which inputs each output reads along one axis, (outputs, most): those to which the operation gives weight, which
    at some places is exactly zero."""
    n, m = call.args["self"].shape[axis], call.shape[axis]
    lines = torch.eye(n, dtype=torch.float64).view(n, 1, 1, n)  # always across: of images 1 px wide torch errs down
    scale = call.args["scales_h" if axis == -2 else "scales_w"]
    line = {"self": lines, "output_size": [1, m], "scales_h": None, "scales_w": scale}
    hit = call.func(**{**call.args, **line}).view(n, m).T != 0  # (m, n)
    reads = hit.float().topk(int(hit.sum(1).max()))
    return torch.where(reads.values > 0, reads.indices, reads.indices[:, :1]).float()
