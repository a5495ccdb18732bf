"""Fused steps: a convolution and what stands around it in one operation of oneDNN.

A BatchNorm behind it goes into the weights; then another value may be added, as at the end of a residual block, and an
activation applied, while the numbers are still at hand. torch by itself goes through memory for each of these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vizcnn.graph.recording import Graph, Ref, Step
from vizcnn.occlusion.kernels.chains import Chain, chains
from vizcnn.occlusion.kernels.packed import Dense, available, pack


@torch.no_grad()
def fuse(graph: Graph) -> Graph:
    """The graph with its convolutions packed; as it is where oneDNN has no part."""
    if not available():
        return graph
    made: dict[int, Step | None] = {}  # what stands in for a step, by the step's first output
    for chain in chains(graph):
        made.update((value, None) for step in chain.steps for value in step.outputs[:1])
        made.update(_steps(chain, graph))
    steps = (made.get(step.outputs[0], _as_dense(step)) for step in graph.steps)
    return replace(graph, steps=tuple(step for step in steps if step))


def _as_dense(step: Step) -> Step:
    """A dense layer by oneDNN, whose products of float32 are faster than torch's on many processors."""
    args = step.args
    if step.name != "addmm" or args["beta"] != 1 or args["alpha"] != 1:
        return step
    constants = all(_is_ours(args[name]) for name in ("self", "mat2"))
    return replace(step, func=Dense()) if constants and args["mat2"].t().is_contiguous() else step


def _is_ours(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _steps(chain: Chain, graph: Graph) -> dict[int, Step | None]:
    """What stands in for a chain, by the first output of the step whose place it takes."""
    args, shape = chain.convolution.args, graph.shapes[chain.convolution.inputs[0]]
    assert shape is not None  # true of every step that can be packed
    weight, bias, steps = args["weight"], args["bias"], dict[int, Step | None]()
    if chain.before:
        norm, relu = chain.before
        bound, weight, bias = _bounded(norm, weight, bias)
        clamp = torch.ops.aten.clamp_.Tensor if chain.in_place else torch.ops.aten.clamp.Tensor
        steps = {norm.outputs[0]: None, relu.outputs[0]: Step(clamp, bound, relu.outputs)}
    if chain.norm:
        weight, bias = _folded(weight, bias, chain.norm.args)
    func = pack(args, weight, bias, shape, chain.activation)
    return {**steps, chain.value: Step(func, args | chain.added, (chain.value,))}


def _scale_and_shift(norm: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies by and then adds: float64 (C,) each."""
    scale = (norm["running_var"].double() + norm["eps"]).rsqrt()
    scale = scale if norm["weight"] is None else scale * norm["weight"].double()
    shift = -norm["running_mean"].double() * scale
    return scale, shift if norm["bias"] is None else shift + norm["bias"].double()


def _folded(weight: Tensor, bias: Tensor | None, norm: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Weights and bias (K,) that do what a BatchNorm does behind them."""
    scale, shift = _scale_and_shift(norm)
    shift = shift if bias is None else shift + bias.double() * scale
    return weight * scale.to(weight.dtype).view(-1, 1, 1, 1), shift.to(weight.dtype)


def _bounded(norm: Step, weight: Tensor, bias: Tensor | None) -> tuple[dict[str, Any], Tensor, Tensor]:
    """A BatchNorm and a ReLU before a kernel of one place, in one pass over the numbers instead of two.

    relu(a x + b) = a max(x, -b / a) + b for a > 0, and with the minimum for a < 0: so only the bound is left to do, and
    a and b go into weights (K, C, 1, 1) and bias (K,). Returns the arguments of aten.clamp, and these."""
    scale, shift = _scale_and_shift(norm.args)
    dead = scale.abs() < 1e-12 * shift.abs().clamp(min=1)  # such a channel is the constant relu(b)
    bound = torch.where(dead, 0.0, -shift / torch.where(dead, 1.0, scale))  # (C,)
    low, high = (
        torch.where(dead | side, bound, end) for side, end in ((scale > 0, -torch.inf), (scale < 0, torch.inf))
    )
    shift, scale = torch.where(dead, shift.relu(), shift), torch.where(dead, 0.0, scale)
    added = (weight.double() * shift.view(-1, 1, 1)).sum((1, 2, 3))  # (K,)
    added = added if bias is None else added + bias.double()
    edges = [edge.to(weight.dtype).view(-1, 1, 1) for edge in (low, high)]
    args = {"self": Ref(norm.inputs[0]), "min": edges[0], "max": edges[1] if (high < torch.inf).any() else None}
    return args, (weight.double() * scale.view(-1, 1, 1)).to(weight.dtype), added.to(weight.dtype)
