"""Optimisers: how parameters move along the gradient. Each works on every picture of a batch as if it were alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_HISTORY = 20  # gradients from which L-BFGS estimates the curvature


class _Adam:
    """Adam upwards, or NAdam; it works on each parameter apart, so pictures of a batch cannot disturb each other."""

    kind: type[torch.optim.Optimizer] = torch.optim.Adam

    def __init__(self, parameters: Tensor, rate: float) -> None:
        self.parameters = parameters
        self.own = self.kind([parameters], lr=rate)  # type: ignore[call-arg]

    def __call__(self, gradient: Tensor) -> None:
        self.parameters.grad = -gradient
        self.own.step()
        self.parameters.grad = None


class _NAdam(_Adam):
    kind = torch.optim.NAdam


class _Steps:
    """p + rate * g / rms(g): steps along each picture's gradient, scaled to a root mean square of 1."""

    def __init__(self, parameters: Tensor, rate: float) -> None:
        self.parameters, self.rate = parameters, rate

    def __call__(self, gradient: Tensor) -> None:
        size = gradient.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
        self.parameters += self.rate * gradient / size.view(-1, *[1] * (gradient.dim() - 1))


class _Lbfgs:
    """L-BFGS upwards, with one step per gradient; each picture has a history of its own."""

    def __init__(self, parameters: Tensor, rate: float) -> None:
        self.each = list(parameters)  # views of the N pictures' own
        self.own = [torch.optim.LBFGS([one], lr=rate, max_iter=1, history_size=_HISTORY) for one in self.each]

    def __call__(self, gradient: Tensor) -> None:
        for one, optimiser, upwards in zip(self.each, self.own, gradient, strict=True):
            one.grad = -upwards.contiguous()
            optimiser.step(lambda: 0.0)  # without a line search, what the function comes to plays no part
            one.grad = None


OPTIMISERS: dict[str, Callable[[Tensor, float], Callable[[Tensor], None]]] = {
    "adam": _Adam,
    "nadam": _NAdam,
    "ascent": _Steps,
    "lbfgs": _Lbfgs,
}
"""By name: from parameters (N, ...) and the length of a step to a function that takes their gradient and changes
them."""
