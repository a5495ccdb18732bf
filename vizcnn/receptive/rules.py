"""Rules: how each operation of a network carries the bounds of its inputs to its outputs.

The operations are torch's own lowest level (ATen), to which modules, functions and operators all come down: one rule
serves nn.MaxPool2d, F.max_pool2d and torch.max_pool2d.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vizcnn.graph.geometry import BATCH_NORMS, VIEWS, find_normalized_axes, find_reduced_axes, name_operation
from vizcnn.models.layers.dryrun import find_tensors, is_elementwise
from vizcnn.models.layers.expanded import Shape, compact, reshape
from vizcnn.receptive.bounds import Bounds, hull, least, of_nothing
from vizcnn.receptive.call import Call, Rule, Unknown
from vizcnn.receptive.sliding import adaptive, convolution, padded, pooled, resampled, resized


def rule_for(func: Any) -> Rule:
    """The rule of an ATen operation. Raises Unknown."""
    name = name_operation(func)
    rule = RULES.get(name) or (pointwise if is_elementwise(func) else None)
    if rule is None or (func._schema.is_mutable and rule not in (pointwise, restrided, copied, cleared)):
        raise Unknown(name)
    return rule


def pointwise(call: Call) -> Bounds:
    """Element by element, with broadcasting."""
    return hull([call.look(t) for t in find_tensors(call.args)], call.shape)


def copied(call: Call) -> Bounds:
    """What was there before is gone."""
    return hull([call.of("src")], call.shape)


def cleared(call: Call) -> Bounds:
    return of_nothing(call.shape)


def moved(call: Call) -> Bounds | list[Bounds]:
    """Elements change places: the same operation moves the bounds."""
    parts = [call.look(t) for t in find_tensors(call.args)]
    step = max(p.step[0] for p in parts), max(p.step[1] for p in parts)
    outcomes = [_applied_to_edge(call, i) for i in range(8)]
    if isinstance(outcomes[0], Tensor):
        return Bounds(tuple(outcomes), step)
    return [Bounds(edges, step) for edges in zip(*outcomes, strict=True)]


def _applied_to_edge(call: Call, i: int) -> Any:
    return call.func(**tree_map_only(Tensor, lambda t: call.look(t).edges[i], call.args))


def joined(call: Call) -> Bounds:
    """Like `moved`, but numbers that repeat in all parts stay unwritten: networks join large tensors often."""
    parts = [call.look(t) for t in call.args["tensors"]]
    axis = call.args["dim"] % len(call.shape)
    edges = (_concatenated([p.edges[i] for p in parts], axis, call.shape) for i in range(8))
    return Bounds(tuple(edges), (max(p.step[0] for p in parts), max(p.step[1] for p in parts)))


def _concatenated(edges: list[Tensor], axis: int, shape: Shape) -> Tensor:
    repeated = [d for d in range(len(shape)) if d != axis and all(edge.stride(d) == 0 for edge in edges)]
    return torch.cat([compact(edge, repeated) for edge in edges], axis).expand(tuple(shape))


def viewed(call: Call) -> Bounds:
    return call.of("self").changed(lambda edge: reshape(edge, call.shape))


def restrided(call: Call) -> Bounds:
    """Only what pooling to 1x1 does within torch: other strides for axes of length 1."""
    bounds = call.of("self")
    if bounds.edges[0].shape != call.shape or not call.args["self"].is_contiguous():
        raise Unknown("as_strided")
    return bounds


def attention(call: Call) -> Bounds:
    """Every query meets all keys and values."""
    met = [call.of(name).changed(lambda edge: least(edge, [-2, -1])) for name in ("key", "value")]
    return hull([call.of("query").changed(lambda edge: least(edge, [-1])), *met], call.shape)


def sliced(call: Call) -> Bounds:
    axis = call.args["dim"] % len(call.shape) - len(call.shape)
    every = call.args["step"]
    found = Bounds(tuple(_applied_to_edge(call, i) for i in range(8)), call.of("self").step)
    return found.scaled(every if axis == -2 else 1, every if axis == -1 else 1)


def nearest(call: Call) -> Bounds:
    found = Bounds(tuple(_applied_to_edge(call, i) for i in range(8)), call.of("self").step)
    return resized(call, found)


def reduced(call: Call) -> Bounds:
    """A mean, sum, maximum or norm along axes."""
    dims = find_reduced_axes(call.args, call.args["self"].dim())
    return call.of("self").changed(lambda edge: least(edge, dims).reshape(call.shape))


def mixed(call: Call) -> Bounds:
    """Every output depends on all inputs along an axis, as in a softmax."""
    dims = find_reduced_axes(call.args, call.args["self"].dim())
    return call.of("self").changed(lambda edge: least(edge, dims).expand(call.shape))


def unpooled(call: Call) -> Bounds:
    """Every place may be the one at which a maximum was found."""
    met = [call.of(name).changed(lambda edge: least(edge, [-2, -1]).expand(call.shape)) for name in ("self", "indices")]
    return hull(met, call.shape)


def layer_norm(call: Call) -> Bounds:
    dims = find_normalized_axes(call.args, len(call.shape))
    return call.of("input").changed(lambda edge: least(edge, dims).expand(call.shape))


def group_norm(call: Call) -> Bounds:
    grouped = (call.args["N"], call.args["group"], -1)
    full = call.of("input").changed(lambda edge: edge.reshape(grouped))
    return full.changed(lambda edge: least(edge, [2]).expand(edge.shape).reshape(call.shape))


def batch_norm(call: Call) -> Bounds:
    """With running statistics, or with each channel's own, as instance normalisation has them of one image."""
    if not call.args.get("training"):
        return call.of("input")
    dims = [d for d in range(len(call.shape)) if d != 1]
    return call.of("input").changed(lambda edge: least(edge, dims).expand(call.shape))


def matrix_product(call: Call) -> Bounds:
    """Rows of the one meet columns of the other; a bias is added."""
    *bias, a, b = [value for value in call.args.values() if isinstance(value, Tensor)]
    rows = call.look(a).changed(lambda edge: least(edge, [-1]))
    columns = call.look(b).changed(lambda edge: least(edge, [-2]))
    return hull([rows, columns, *map(call.look, bias)], call.shape)


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_named(moved, "expand flip permute reflection_pad2d repeat replication_pad2d roll select split"),
    **_named(moved, "split_with_sizes squeeze stack t transpose unbind unsqueeze"),
    **_named(moved, "channel_shuffle native_channel_shuffle pixel_shuffle pixel_unshuffle rot90"),
    **dict.fromkeys(VIEWS, viewed),
    **_named(nearest, "_upsample_nearest_exact2d upsample_nearest2d"),
    **_named(resampled, "_upsample_bicubic2d_aa _upsample_bilinear2d_aa upsample_bicubic2d upsample_bilinear2d"),
    **_named(pooled, "avg_pool2d max_pool2d_with_indices"),
    **_named(adaptive, "_adaptive_avg_pool2d adaptive_max_pool2d"),
    **_named(reduced, "amax amin linalg_vector_norm logsumexp max mean min norm prod std sum var"),
    **_named(mixed, "_fft_c2c _fft_c2r _fft_r2c _log_softmax _safe_softmax _softmax cumsum"),
    **dict.fromkeys(BATCH_NORMS, batch_norm),
    **_named(attention, "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention"),
    **_named(attention, "_scaled_dot_product_cudnn_attention _scaled_dot_product_efficient_attention"),
    **_named(cleared, "empty_like fill full_like new_empty new_empty_strided new_full new_ones new_zeros ones_like"),
    **_named(cleared, "rand_like randn_like zero zeros_like"),
    **_named(matrix_product, "addmm baddbmm bmm mm"),
    "_to_copy": pointwise,
    "as_strided": restrided,
    "cat": joined,
    "constant_pad_nd": padded,
    "convolution": convolution,
    "copy": copied,
    "max_unpool2d": unpooled,
    "native_group_norm": group_norm,
    "native_layer_norm": layer_norm,
    "slice": sliced,
}
"""By the operation's name; others have a rule when they are element by element."""
