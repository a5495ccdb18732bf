"""Precision: what a network that computes in 16 bits cannot say, and what to do about it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from vizcnn.errors import VizcnnWarning

_HALF = (torch.float16, torch.bfloat16)
_FEWEST_STEPS = 16  # of the smallest number of float16, that the largest gradient of a map must come to


def advise_precision(dtype: torch.dtype) -> str:
    """What to add to a message about numbers that got lost or too large: for 16 bits that these may be the reason."""
    if dtype not in _HALF:
        return ""
    info = torch.finfo(dtype)
    return (
        f". The network computes in {_name(dtype)}, which tells numbers apart by {100 * info.eps:.1g}% and ends at "
        f"{info.max:.3g}: try it in float32, network.float()"
    )


def widen(values: Tensor) -> Tensor:
    """The values in 32 bits at least: squares and exponentials of what 16 bits hold would not fit in there again."""
    return values.float() if values.dtype in _HALF else values


def warn_of_underflow(gradients: Tensor, dtype: torch.dtype) -> None:
    """Warn of gradients so small that the network's dtype has rounded most of them away."""
    if dtype != torch.float16:  # the others have numbers down to 1e-38
        return
    step, largest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps, float(gradients.detach().abs().max())
    if 0 < largest < _FEWEST_STEPS * step:
        warnings.warn(
            f"the gradient is {largest:.1g} at most, and float16 has only multiples of {step:.1g} there: this map is "
            "mostly rounding. Use the network in float32, network.float(), or another target",
            VizcnnWarning,
            stacklevel=2,
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
