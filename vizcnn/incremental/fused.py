"""Fused steps: a convolution and the ReLU behind it in one operation of oneDNN, its weights laid out once.

torch by itself lays weights out anew in each call, which counts where small crops meet large weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vizcnn.incremental.tape import Ref, Shape, Step, Tape, refs_in

_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")


class Packed:
    """aten.convolution of given weights with all that was fused into it; takes the same arguments."""

    _schema = torch.ops.aten.convolution.default._schema
    tags: tuple[Any, ...] = ()

    def __init__(self, steps: Sequence[Step], shape: Shape, dtype: torch.dtype | None) -> None:
        """steps: the convolution, then perhaps a norm, then perhaps a ReLU. shape: of its input, (C, H, W)."""
        args = steps[0].args
        weight, bias = args["weight"], args["bias"]
        for norm in (step for step in steps if step.name in _NORMS):
            weight, bias = _folded(weight, bias, norm.args)
        self.bias = None if bias is None else bias.to(dtype)
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        self.weight = reorder(weight.to(dtype).contiguous(), *_where(args), [8, *shape])
        self.then = "relu" if steps[-1].name == "relu" else "none"

    def __call__(self, *, input: Tensor, **args: Any) -> Tensor:
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input.contiguous(memory_format=torch.channels_last),
            self.weight, self.bias, *_where(args), self.then, [], ""
        )  # fmt: skip
        return out


def _where(args: dict[str, Any]) -> tuple[Any, ...]:
    return args["padding"], args["stride"], args["dilation"], args["groups"]


def _folded(weight: Tensor, bias: Tensor | None, norm: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Weights and bias (K,) that do what a BatchNorm does behind them."""
    mean, variance = norm["running_mean"].double(), norm["running_var"].double()
    scale = (variance + norm["eps"]).rsqrt()
    scale = scale if norm["weight"] is None else scale * norm["weight"].double()
    shift = (-mean if bias is None else bias.double() - mean) * scale
    shift = shift if norm["bias"] is None else shift + norm["bias"].double()
    return (weight * scale.view(-1, 1, 1, 1)).to(weight.dtype), shift.to(weight.dtype)


@torch.no_grad()
def fused(tape: Tape, dtype: torch.dtype | None) -> Tape:
    """The tape with its convolutions packed, in `dtype` or the network's own; as it is where oneDNN has no part.

    In a reduced type BatchNorm goes into the weights too. In the network's own, kernels of one place are left alone:
    packed they are no faster, and their second copy is most of the memory."""
    if not _available():
        return tape
    # exactness: with a norm's scale rounded into the weights, deep networks drift from full runs by 1e-4 of the drops
    norms = _NORMS if dtype else ()
    uses = Counter(value for tree in (tape.wanted, *(step.args for step in tape.steps)) for value in refs_in(tree))
    follows = {step.inputs[0]: step for step in tape.steps if step.inputs and uses[step.inputs[0]] == 1}
    gone, steps = set[int](), list[Step]()
    for step in tape.steps:
        if step.outputs[0] not in gone:
            worth = _packable(step, tape) and (dtype is not None or max(step.args["weight"].shape[2:]) > 1)
            chain = _chain(step, follows, uses, norms) if worth else [step]
            gone.update(each.outputs[0] for each in chain[1:])
            steps.append(_packed(chain, tape, dtype) if worth else step)
    return replace(tape, steps=tuple(steps))


def _available() -> bool:
    enabled = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    return enabled and all(
        hasattr(torch.ops.mkldnn, n) for n in ("_reorder_convolution_weight", "_convolution_pointwise")
    )


def _chain(step: Step, follows: dict[int, Step], uses: Counter[int], norms: Sequence[str]) -> list[Step]:
    """A convolution that can be packed and what behind it can be fused."""
    chain = [step]
    after = follows.get(step.outputs[0])
    if after and after.name in norms and _plain(after, uses):
        chain.append(after)
        after = follows.get(after.outputs[0])
    if after and after.name == "relu":
        chain.append(after)
    return chain


def _packable(step: Step, tape: Tape) -> bool:
    weight = step.args.get("weight")
    if step.name != "convolution" or step.args["transposed"] or not isinstance(weight, Tensor) or weight.dim() != 4:
        return False
    ours = not isinstance(step.args["bias"], Ref) and len(step.inputs) == 1 and tape.shapes[step.inputs[0]] is not None
    return ours and weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.is_mkldnn


def _plain(norm: Step, uses: Counter[int]) -> bool:
    """Whether a norm goes by running statistics that are constants, and only its outcome is used."""
    constants = all(isinstance(norm.args[name], Tensor) for name in ("running_mean", "running_var"))
    own = not any(isinstance(norm.args[name], Ref) for name in ("weight", "bias"))
    return constants and own and not norm.args.get("training") and not any(uses[v] for v in norm.outputs[1:])


def _packed(chain: list[Step], tape: Tape, dtype: torch.dtype | None) -> Step:
    step, shape = chain[0], tape.shapes[chain[0].inputs[0]]
    assert shape is not None  # true of every step that can be packed
    func = Packed(chain, shape, dtype or step.args["weight"].dtype)
    return replace(step, func=func, outputs=chain[-1].outputs[:1])
