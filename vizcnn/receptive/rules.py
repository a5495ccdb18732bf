"""Rules: for each operation of a network, the bounds of its outputs from those of its inputs.

The operations are torch's own lowest level (ATen), to which modules, functions and operators all come down: one rule
serves nn.MaxPool2d, F.max_pool2d and torch.max_pool2d.

A rule `bound_X(call)` returns the bounds of what the operation X gives; its docstring says what each output depends on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vizcnn.graph.geometry import BATCH_NORMS, VIEWS, find_normalized_axes, find_reduced_axes, name_operation
from vizcnn.models.layers.dryrun import find_tensors, is_elementwise
from vizcnn.models.layers.expanded import Shape, compact, reshape
from vizcnn.receptive.bounds import Bounds, bound_nothing, join, take_minimum
from vizcnn.receptive.call import Call, NoRuleError, Rule
from vizcnn.receptive.sliding import (
    bound_adaptive_pooling,
    bound_convolution,
    bound_padding,
    bound_pooling,
    bound_resampling,
    scale_to_size,
)


def find_rule(func: Any) -> Rule:
    """The rule of an ATen operation. Raises NoRuleError."""
    name = name_operation(func)
    rule = RULES.get(name) or (bound_pointwise if is_elementwise(func) else None)
    if rule is None or (func._schema.is_mutable and rule not in RULES_IN_PLACE):
        raise NoRuleError(name)
    return rule


def bound_pointwise(call: Call) -> Bounds:
    """Element by element, with broadcasting."""
    return join([call.look_up(t) for t in find_tensors(call.args)], call.shape)


def bound_copy(call: Call) -> Bounds:
    """The source's: what the tensor held before is gone."""
    return join([call.find_bounds("src")], call.shape)


def bound_fresh(call: Call) -> Bounds:
    """A tensor of constants or noise sees nothing."""
    return bound_nothing(call.shape)


def bound_moves(call: Call) -> Bounds | list[Bounds]:
    """Elements change places, and the same operation moves their bounds."""
    parts = [call.look_up(t) for t in find_tensors(call.args)]
    step = max(p.step[0] for p in parts), max(p.step[1] for p in parts)
    outcomes = [_apply_to_edge(call, i) for i in range(8)]
    if isinstance(outcomes[0], Tensor):
        return Bounds(tuple(outcomes), step)
    return [Bounds(edges, step) for edges in zip(*outcomes, strict=True)]


def _apply_to_edge(call: Call, i: int) -> Any:
    return call.func(**tree_map_only(Tensor, lambda t: call.look_up(t).edges[i], call.args))


def bound_cat(call: Call) -> Bounds:
    """Like `bound_moves`, but what repeats in all parts stays expanded, since networks often join large tensors."""
    parts = [call.look_up(t) for t in call.args["tensors"]]
    axis = call.args["dim"] % len(call.shape)
    edges = (_concatenate([p.edges[i] for p in parts], axis, call.shape) for i in range(8))
    return Bounds(tuple(edges), (max(p.step[0] for p in parts), max(p.step[1] for p in parts)))


def _concatenate(edges: list[Tensor], axis: int, shape: Shape) -> Tensor:
    repeated = [d for d in range(len(shape)) if d != axis and all(edge.stride(d) == 0 for edge in edges)]
    return torch.cat([compact(edge, repeated) for edge in edges], axis).expand(tuple(shape))


def bound_view(call: Call) -> Bounds:
    return call.find_bounds("self").map_edges(lambda edge: reshape(edge, call.shape))


def bound_as_strided(call: Call) -> Bounds:
    """Other strides for axes of length 1, as torch gives when it pools to 1 x 1. Anything else has no rule."""
    bounds = call.find_bounds("self")
    if bounds.edges[0].shape != call.shape or not call.args["self"].is_contiguous():
        raise NoRuleError("as_strided")
    return bounds


def bound_attention(call: Call) -> Bounds:
    """Each output depends on its query and on all keys and values."""
    queries = call.find_bounds("query").map_edges(lambda edge: take_minimum(edge, [-1]))
    others = [call.find_bounds(name).map_edges(lambda edge: take_minimum(edge, [-2, -1])) for name in ("key", "value")]
    return join([queries, *others], call.shape)


def bound_slice(call: Call) -> Bounds:
    axis = call.args["dim"] % len(call.shape) - len(call.shape)
    every = call.args["step"]
    found = Bounds(tuple(_apply_to_edge(call, i) for i in range(8)), call.find_bounds("self").step)
    return found.scale_step(every if axis == -2 else 1, every if axis == -1 else 1)


def bound_nearest(call: Call) -> Bounds:
    found = Bounds(tuple(_apply_to_edge(call, i) for i in range(8)), call.find_bounds("self").step)
    return scale_to_size(call, found)


def bound_reduction(call: Call) -> Bounds:
    """A mean, sum, maximum or norm along axes."""
    dims = find_reduced_axes(call.args, call.args["self"].dim())
    return call.find_bounds("self").map_edges(lambda edge: take_minimum(edge, dims).reshape(call.shape))


def bound_mixing(call: Call) -> Bounds:
    """Every output depends on all inputs along an axis, as in a softmax."""
    dims = find_reduced_axes(call.args, call.args["self"].dim())
    return call.find_bounds("self").map_edges(lambda edge: take_minimum(edge, dims).expand(call.shape))


def bound_unpooling(call: Call) -> Bounds:
    """Any place may be the one that a maximum goes back to."""
    anywhere = [
        call.find_bounds(name).map_edges(lambda edge: take_minimum(edge, [-2, -1]).expand(call.shape))
        for name in ("self", "indices")
    ]
    return join(anywhere, call.shape)


def bound_layer_norm(call: Call) -> Bounds:
    dims = find_normalized_axes(call.args, len(call.shape))
    return call.find_bounds("input").map_edges(lambda edge: take_minimum(edge, dims).expand(call.shape))


def bound_group_norm(call: Call) -> Bounds:
    grouped = (call.args["N"], call.args["group"], -1)
    full = call.find_bounds("input").map_edges(lambda edge: edge.reshape(grouped))
    return full.map_edges(lambda edge: take_minimum(edge, [2]).expand(edge.shape).reshape(call.shape))


def bound_batch_norm(call: Call) -> Bounds:
    """Element by element with running statistics; else each channel as a whole, as in instance
    normalization, which torch runs as this operation."""
    if not call.args.get("training"):
        return call.find_bounds("input")
    dims = [d for d in range(len(call.shape)) if d != 1]
    return call.find_bounds("input").map_edges(lambda edge: take_minimum(edge, dims).expand(call.shape))


def bound_matrix_product(call: Call) -> Bounds:
    """Each output depends on a row of the first matrix, a column of the second, and the bias where there is one."""
    *bias, a, b = [value for value in call.args.values() if isinstance(value, Tensor)]
    rows = call.look_up(a).map_edges(lambda edge: take_minimum(edge, [-1]))
    columns = call.look_up(b).map_edges(lambda edge: take_minimum(edge, [-2]))
    return join([rows, columns, *map(call.look_up, bias)], call.shape)


def _for_names(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_for_names(bound_moves, "expand flip permute reflection_pad2d repeat replication_pad2d roll select split"),
    **_for_names(bound_moves, "split_with_sizes squeeze stack t transpose unbind unsqueeze"),
    **_for_names(bound_moves, "channel_shuffle native_channel_shuffle pixel_shuffle pixel_unshuffle rot90"),
    **dict.fromkeys(VIEWS, bound_view),
    **_for_names(bound_nearest, "_upsample_nearest_exact2d upsample_nearest2d"),
    **_for_names(bound_resampling, "_upsample_bicubic2d_aa _upsample_bilinear2d_aa"),
    **_for_names(bound_resampling, "upsample_bicubic2d upsample_bilinear2d"),
    **_for_names(bound_pooling, "avg_pool2d max_pool2d_with_indices"),
    **_for_names(bound_adaptive_pooling, "_adaptive_avg_pool2d adaptive_max_pool2d"),
    **_for_names(bound_reduction, "amax amin linalg_vector_norm logsumexp max mean min norm prod std sum var"),
    **_for_names(bound_mixing, "_fft_c2c _fft_c2r _fft_r2c _log_softmax _safe_softmax _softmax cumsum"),
    **dict.fromkeys(BATCH_NORMS, bound_batch_norm),
    **_for_names(bound_attention, "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention"),
    **_for_names(bound_attention, "_scaled_dot_product_cudnn_attention _scaled_dot_product_efficient_attention"),
    **_for_names(bound_fresh, "empty_like fill full_like new_empty new_empty_strided new_full new_ones new_zeros"),
    **_for_names(bound_fresh, "ones_like rand_like randn_like zero zeros_like"),
    **_for_names(bound_matrix_product, "addmm baddbmm bmm mm"),
    "_to_copy": bound_pointwise,
    "as_strided": bound_as_strided,
    "cat": bound_cat,
    "constant_pad_nd": bound_padding,
    "convolution": bound_convolution,
    "copy": bound_copy,
    "max_unpool2d": bound_unpooling,
    "native_group_norm": bound_group_norm,
    "native_layer_norm": bound_layer_norm,
    "slice": bound_slice,
}
"""The rule of each operation by its name. Operations that work element by element need not be listed."""

RULES_IN_PLACE = (bound_pointwise, bound_as_strided, bound_copy, bound_fresh)
"""The rules that also hold where the operation writes into its input."""
