"""Optimisers: how numbers move along the slope. Each works on every picture of a batch as if it were alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class _Adam:
    """Adam upwards, or NAdam; it works on each number apart, so pictures of a batch cannot disturb each other."""

    kind: type[torch.optim.Optimizer] = torch.optim.Adam

    def __init__(self, numbers: Tensor, rate: float) -> None:
        self.numbers = numbers
        self.own = self.kind([numbers], lr=rate)  # type: ignore[call-arg]

    def __call__(self, slope: Tensor) -> None:
        self.numbers.grad = -slope
        self.own.step()
        self.numbers.grad = None


class _NAdam(_Adam):
    kind = torch.optim.NAdam


class _Steps:
    """Steps along each picture's gradient, scaled to a root mean square of 1."""

    def __init__(self, numbers: Tensor, rate: float) -> None:
        self.numbers, self.rate = numbers, rate

    def __call__(self, slope: Tensor) -> None:
        size = slope.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
        self.numbers += self.rate * slope / size.view(-1, *[1] * (slope.dim() - 1))


OPTIMISERS: dict[str, Callable[[Tensor, float], Callable[[Tensor], None]]] = {
    "adam": _Adam,
    "nadam": _NAdam,
    "ascent": _Steps,
}
"""By name: from numbers (N, ...) and the length of a step, a function that takes their slope and changes them."""
