"""Optimisers: how parameters move along the gradient. Each works on every picture of a batch as if it were alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

_HISTORY = 20  # gradients from which L-BFGS estimates the curvature


class _Adam:
    """Adam upwards (Kingma & Ba 2015, arXiv:1412.6980), with torch's defaults and up to rounding what torch computes;
    it works on each parameter apart, so pictures of a batch cannot disturb each other.

    torch's own optimizers import torch's compiler, which takes longer than a hundred steps here."""

    first_decay, second_decay, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Tensor, rate: float) -> None:
        self.parameters, self.rate, self.step = parameters, rate, 0
        self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)

    def __call__(self, gradient: Tensor) -> None:
        self.step += 1
        gradient = -gradient
        self.mean.lerp_(gradient, 1 - self.first_decay)
        self.square.mul_(self.second_decay).addcmul_(gradient, gradient, value=1 - self.second_decay)
        self._move(gradient)

    def _move(self, _gradient: Tensor) -> None:
        size = self.square.sqrt() / (1 - self.second_decay**self.step) ** 0.5 + self.epsilon
        self.parameters.addcdiv_(self.mean, size, value=-self.rate / (1 - self.first_decay**self.step))


class _NAdam(_Adam):
    """Adam with Nesterov's look ahead (Dozat 2016), whose weight grows from half of the first decay to all of it."""

    def __init__(self, parameters: Tensor, rate: float) -> None:
        super().__init__(parameters, rate)
        self.product = 1.0

    def _move(self, gradient: Tensor) -> None:
        now, soon = (self.first_decay * (1 - 0.5 * 0.96 ** (step * 0.004)) for step in (self.step, self.step + 1))
        self.product *= now
        size = (self.square / (1 - self.second_decay**self.step)).sqrt() + self.epsilon
        self.parameters.addcdiv_(gradient, size, value=-self.rate * (1 - now) / (1 - self.product))
        self.parameters.addcdiv_(self.mean, size, value=-self.rate * soon / (1 - self.product * soon))


class PlainLBFGS(torch.optim.LBFGS):
    """torch's L-BFGS. Its base imports torch's compiler in order to keep it out of this method; here nothing is
    compiled."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


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
        self.own = [PlainLBFGS([one], lr=rate, max_iter=1, history_size=_HISTORY) for one in self.each]

    def __call__(self, gradient: Tensor) -> None:
        for one, optimiser, upwards in zip(self.each, self.own, gradient, strict=True):
            one.grad = -upwards.contiguous()
            # Without a line search, what the function comes to plays no part.
            optimiser.step(lambda: 0.0)  # type: ignore[no-untyped-call]
            one.grad = None


OPTIMISERS: dict[str, Callable[[Tensor, float], Callable[[Tensor], None]]] = {
    "adam": _Adam,
    "nadam": _NAdam,
    "ascent": _Steps,
    "lbfgs": _Lbfgs,
}
"""By name: from parameters (N, ...) and the length of a step to a function that takes their gradient and changes
them."""
