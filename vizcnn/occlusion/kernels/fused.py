"""Fused steps: a convolution and the steps around it as one operation of oneDNN.

A mean over places goes before a kernel of 1x1 instead of after it. A BatchNorm after a convolution goes into the
weights; then another value may be added, as at the end of a residual block, and an activation applied, while the
numbers are still in the processor. torch by itself goes through memory for each of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vizcnn.graph.recording import Graph, Ref, Shape, Step
from vizcnn.occlusion.kernels.chains import Chain, find_chains
from vizcnn.occlusion.kernels.packed import Dense, is_available, pack


@torch.no_grad()
def fuse(graph: Graph) -> Graph:
    """The same graph with its convolutions and dense layers packed; as it is where torch lacks oneDNN."""
    if not is_available():
        return graph
    replaced: dict[int, Step | None] = {}  # what a step is replaced by, by the step's first output; None: by nothing
    shapes = dict(graph.shapes)
    for chain in find_chains(graph):
        replaced.update((step.outputs[0], None) for step in chain.steps)
        if chain.pool:
            shapes[chain.convolution.outputs[0]] = _find_pooled_shape(chain, graph)
        replaced.update(_fuse_chain(chain, shapes))
    steps = (replaced.get(step.outputs[0], _pack_dense(step)) for step in graph.steps)
    return replace(graph, steps=tuple(step for step in steps if step), shapes=shapes)


def _find_pooled_shape(chain: Chain, graph: Graph) -> Shape:
    """The shape of what a convolution reads, after the pooling that goes first."""
    before, after = graph.shapes[chain.convolution.inputs[0]], graph.shapes[chain.output]
    assert before is not None  # true of every step that can be packed
    assert after is not None
    return (before[0], *after[1:])


def _pack_dense(step: Step) -> Step:
    """A dense layer by oneDNN, whose products of float32 are faster than torch's on many processors; else the step."""
    args = step.args
    if step.name != "addmm" or args["beta"] != 1 or args["alpha"] != 1:
        return step
    for constant in (args["self"], args["mat2"]):
        if not isinstance(constant, Tensor) or constant.dtype != torch.float32 or constant.device.type != "cpu":
            return step
    return replace(step, func=Dense()) if args["mat2"].t().is_contiguous() else step


def _fuse_chain(chain: Chain, shapes: Mapping[int, Shape | None]) -> dict[int, Step | None]:
    """The steps that replace a chain, by the first output of the step whose place they take."""
    args, steps = chain.convolution.args, dict[int, Step | None]()
    weight, bias = args["weight"], args["bias"]
    if chain.pool:
        pooled = chain.convolution.outputs
        steps[pooled[0]] = replace(chain.pool, args=chain.pool.args | {"self": args["input"]}, outputs=pooled)
        args = args | {"input": Ref(pooled[0])}
    shape = shapes[args["input"].value]
    assert shape is not None  # true of every step that can be packed
    if chain.before:
        norm, relu = chain.before
        limits, weight, bias = _fold_norm_and_relu_before(norm, weight, bias)
        clamp = torch.ops.aten.clamp_.Tensor if chain.in_place else torch.ops.aten.clamp.Tensor
        steps |= {norm.outputs[0]: None, relu.outputs[0]: Step(clamp, limits, relu.outputs)}
    if chain.norm:
        weight, bias = _fold_norm_after(weight, bias, chain.norm.args)
    func = pack(args, weight, bias, shape, chain.activation)
    if chain.addend:
        args = {**args, "addend": chain.addend}
    return {**steps, chain.output: Step(func, args, (chain.output,))}


def _find_scale_and_shift(norm: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies by and then adds: float64 (C,) each."""
    scale = (norm["running_var"].double() + norm["eps"]).rsqrt()
    scale = scale if norm["weight"] is None else scale * norm["weight"].double()
    shift = -norm["running_mean"].double() * scale
    return scale, shift if norm["bias"] is None else shift + norm["bias"].double()


def _fold_norm_after(weight: Tensor, bias: Tensor | None, norm: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Weights and bias (K,) of one convolution that does what this one and a BatchNorm after it do."""
    scale, shift = _find_scale_and_shift(norm)
    shift = shift if bias is None else shift + bias.double() * scale
    return weight * scale.to(weight.dtype).view(-1, 1, 1, 1), shift.to(weight.dtype)


def _fold_norm_and_relu_before(
    norm: Step, weight: Tensor, bias: Tensor | None
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """A BatchNorm and a ReLU before a kernel of 1x1 in one pass over memory: a clamp. The rest goes into the weights.

    With a BatchNorm's scale a and shift b,

        relu(a x + b) = a max(x, -b / a) + b    for a > 0
        relu(a x + b) = a min(x, -b / a) + b    for a < 0

    so that x only has to be clamped at -b / a; a is multiplied into the weights (K, C, 1, 1), and b, through the
    weights, added to the bias (K,). Returns the arguments of aten.clamp, the weights and the bias."""
    scale, shift = _find_scale_and_shift(norm.args)
    dead = scale.abs() < 1e-12 * shift.abs().clamp(min=1)  # such a channel is the constant relu(b), whatever x
    bound = torch.where(dead, 0.0, -shift / torch.where(dead, 1.0, scale))  # (C,)
    low = torch.where(dead | (scale > 0), bound, -torch.inf)
    high = torch.where(dead | (scale < 0), bound, torch.inf)
    shift, scale = torch.where(dead, shift.relu(), shift), torch.where(dead, 0.0, scale)
    shifted = (weight.double() * shift.view(-1, 1, 1)).sum((1, 2, 3))  # (K,)
    shifted = shifted if bias is None else shifted + bias.double()
    has_high = bool((high < torch.inf).any())
    low, high = (limit.to(weight.dtype).view(-1, 1, 1) for limit in (low, high))
    args = {"self": Ref(norm.inputs[0]), "min": low, "max": high if has_high else None}
    return args, (weight.double() * scale.view(-1, 1, 1)).to(weight.dtype), shifted.to(weight.dtype)
