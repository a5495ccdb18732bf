"""Rules for operations that read the neighbourhood of a place: convolution, pooling, padding, interpolation."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from vizcnn.graph.geometry import Neighbourhood, find_neighbourhood
from vizcnn.models.layers.expanded import Shape, compact
from vizcnn.receptive.bounds import Bounds, take_minimum
from vizcnn.receptive.call import Call, NoRuleError

AXES = (-2, -1)


def slide(reads: Neighbourhood, bounds: Bounds, shape: Shape) -> Bounds:
    """The bounds of outputs of a shape, each of which reads its neighbourhood along the last two axes.

    Output i reads the inputs i * stride - padding + k * dilation; of a transposed convolution, the inputs
    (i + padding - k * dilation) / stride where that is a whole number."""
    for a, axis in enumerate(AXES):
        places, offsets = torch.arange(shape[axis])[:, None], torch.arange(reads.kernel[a]) * reads.dilation[a]
        if reads.transposed:
            taps = (places + reads.padding[a] - offsets) / reads.stride[a]  # (outputs, reads)
        else:
            taps = (places * reads.stride[a] - reads.padding[a] + offsets).float()  # (outputs, reads)
        bounds = bounds.gather(axis, taps)
    down, across = reads.stride
    return bounds.scale_step(1 / down, 1 / across) if reads.transposed else bounds.scale_step(down, across)


def bound_convolution(call: Call) -> Bounds:
    """A window of places in all channels of a group. Raises NoRuleError for other than two dimensions."""
    reads, groups = find_neighbourhood(call.name, call.args), call.args["groups"]
    if reads is None:
        raise NoRuleError(f"convolution in {call.args['weight'].dim() - 2} dimensions")
    gathered = call.find_bounds("input").map_edges(lambda edge: _gather_groups(edge, groups))
    return slide(reads, gathered, call.shape).map_edges(lambda edge: _spread_groups(edge, call.shape))


def _gather_groups(edge: Tensor, groups: int) -> Tensor:
    """From an edge (N, C, H, W) to its minimum in each group of channels, (N, groups, H, W).

    (N, 1, H, W) where all channels have the same."""
    edge = compact(edge, [1])
    if edge.shape[1] == 1:
        return edge
    return take_minimum(edge.unflatten(1, (groups, -1)), [2])[:, :, 0]


def _spread_groups(edge: Tensor, shape: Shape) -> Tensor:
    """From an edge per group (N, groups, H, W) to one per channel, of the given shape (N, C, H, W)."""
    n, channels, *space = shape
    groups = edge.shape[1]
    if groups == 1:
        return edge.expand(tuple(shape))
    return edge[:, :, None].expand(n, groups, channels // groups, *space).flatten(1, 2)


def bound_pooling(call: Call) -> Bounds:
    """A window of places."""
    reads = find_neighbourhood(call.name, call.args)
    assert reads is not None  # every pooling has one
    return slide(reads, call.find_bounds("self"), call.shape)


def bound_padding(call: Call) -> Bounds:
    """Padding of the last two axes counts as a convolution's does; what is added along other axes sees nothing."""
    pads = list(call.args["pad"])
    if len(pads) > 4:
        return call.find_bounds("self").map_edges(lambda edge: torch.constant_pad_nd(edge, pads, inf))
    top = pads[2] if len(pads) == 4 else 0
    return slide(Neighbourhood((1, 1), padding=(top, pads[0])), call.find_bounds("self"), call.shape)


def bound_adaptive_pooling(call: Call) -> Bounds:
    """Output i of m reads the inputs from floor(i n / m) to ceil((i + 1) n / m)."""
    bounds = call.find_bounds("self")
    for axis in AXES:
        bounds = bounds.gather(axis, _find_bins(call.args["self"].shape[axis], call.shape[axis]))
    return scale_to_size(call, bounds)


def _find_bins(n: int, m: int) -> Tensor:
    """(m, most): the indices of the n inputs that each of m outputs reads; rows with fewer repeat their last."""
    i = torch.arange(m)[:, None]
    first, last = i * n // m, -(-(i + 1) * n // m) - 1  # (m, 1)
    most = int((last - first).max()) + 1
    return torch.minimum(first + torch.arange(most), last).float()


def bound_resampling(call: Call) -> Bounds:
    """Bilinear or bicubic interpolation; `_find_reads` finds the inputs of each output by running the operation."""
    bounds = call.find_bounds("self")
    for axis in AXES:
        bounds = bounds.gather(axis, _find_reads(call, axis))
    return scale_to_size(call, bounds)


def scale_to_size(call: Call, bounds: Bounds) -> Bounds:
    """These bounds with the steps of an operation that resizes its input to its output."""
    h, w = call.args["self"].shape[-2:]
    return bounds.scale_step(h / call.shape[-2], w / call.shape[-1])


def _find_reads(call: Call, axis: int) -> Tensor:
    """(outputs, most): the indices of the inputs along one axis to which the operation gives an output any weight.

    Found by resizing the unit vectors, since the weight at some indices within the kernel is exactly zero."""
    n, m = call.args["self"].shape[axis], call.shape[axis]
    lines = torch.eye(n, dtype=torch.float64).view(n, 1, 1, n)  # always across: of images 1 px wide torch errs down
    scale = call.args["scales_h" if axis == -2 else "scales_w"]
    line = {"self": lines, "output_size": [1, m], "scales_h": None, "scales_w": scale}
    hit = call.func(**{**call.args, **line}).view(n, m).T != 0  # (m, n)
    reads = hit.float().topk(int(hit.sum(1).max()))
    return torch.where(reads.values > 0, reads.indices, reads.indices[:, :1]).float()
