"""Rules for operations that read the neighbourhood of a place: convolution, pooling, padding, interpolation."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from vizcnn.graph.geometry import Neighbourhood, find_neighbourhood
from vizcnn.models.layers.expanded import Shape, compact
from vizcnn.receptive.bounds import Bounds, least
from vizcnn.receptive.call import Call, Unknown

AXES = (-2, -1)


def slid(reads: Neighbourhood, bounds: Bounds, shape: Shape) -> Bounds:
    """The bounds of outputs of this shape that read their neighbourhoods along the last two axes.

    Of a transposed convolution the other way round: neighbours among the inputs write `stride` apart."""
    for a, axis in enumerate(AXES):
        places, offsets = torch.arange(shape[axis])[:, None], torch.arange(reads.kernel[a]) * reads.dilation[a]
        if reads.transposed:
            taps = (places + reads.padding[a] - offsets) / reads.stride[a]
        else:
            taps = (places * reads.stride[a] - reads.padding[a] + offsets).float()
        bounds = bounds.read(axis, taps)  # (outputs, reads)
    down, across = reads.stride
    return bounds.scaled(1 / down, 1 / across) if reads.transposed else bounds.scaled(down, across)


def convolution(call: Call) -> Bounds:
    reads, groups = find_neighbourhood(call.name, call.args), call.args["groups"]
    if reads is None:
        raise Unknown(f"convolution in {call.args['weight'].dim() - 2} dimensions")
    gathered = call.of("input").changed(lambda edge: _per_group(edge, groups))
    return slid(reads, gathered, call.shape).changed(lambda edge: _from_groups(edge, call.shape))


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
    reads = find_neighbourhood(call.name, call.args)
    assert reads is not None  # every pooling has one
    return slid(reads, call.of("self"), call.shape)


def padded(call: Call) -> Bounds:
    """Padding of the last two axes is like a convolution's; that of other axes sees nothing."""
    pads = list(call.args["pad"])
    if len(pads) > 4:
        return call.of("self").changed(lambda edge: torch.constant_pad_nd(edge, pads, inf))
    top = pads[2] if len(pads) == 4 else 0
    return slid(Neighbourhood((1, 1), padding=(top, pads[0])), call.of("self"), call.shape)


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
