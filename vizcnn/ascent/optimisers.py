"""Optimisers: how parameters move along the gradient. Each works on every picture of a batch as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

_HISTORY = 20  # gradients from which L-BFGS estimates the curvature


class Optimiser(Protocol):
    """Parameters (N, ...) of N pictures, which a call with their gradient changes in place."""

    parameters: Tensor

    def __call__(self, gradient: Tensor, /) -> None: ...


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


class _Steps:
    """p + rate * g / rms(g): steps along each picture's gradient, scaled to a root mean square of 1."""

    def __init__(self, parameters: Tensor, rate: float) -> None:
        self.parameters, self.rate = parameters, rate

    def __call__(self, gradient: Tensor) -> None:
        size = gradient.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
        self.parameters += self.rate * gradient / size.view(-1, *[1] * (gradient.dim() - 1))


class _Lbfgs:
    """L-BFGS upwards (Liu & Nocedal 1989), with one step per gradient and no line search; each picture has a history of
    its own. Up to rounding it takes the steps of torch's.

    All pictures step at once, and where one has no step to take or nothing to remember, a zero says so: torch's own
    reads three numbers for every entry of the history, and a device has to be waited for each time."""

    flat, short, straight = 1e-7, 1e-9, 1e-10
    """Below these, as in torch, no step is taken (the largest slope; the slope along the step) and none is remembered
    (the curvature along it)."""

    def __init__(self, parameters: Tensor, rate: float) -> None:
        self.parameters, self.rate = parameters, rate
        rows = parameters.flatten(1)  # (N, P)
        self.slopes, self.step = torch.zeros_like(rows), torch.zeros_like(rows)  # the latest, downwards
        self.scale = rows.new_ones(len(rows), 1)  # of the step where nothing is remembered
        self.begun = torch.zeros(len(rows), 1, dtype=torch.bool, device=rows.device)
        self.history: list[tuple[Tensor, Tensor, Tensor]] = []
        """Changes of slopes and of parameters, (N, P) both, and the inverse of their product (N, 1), or 0."""

    def __call__(self, gradient: Tensor) -> None:
        slopes = -gradient.flatten(1)  # (N, P)
        self._remember(slopes - self.slopes, self.step)
        towards = self._divide_by_curvature(-slopes)
        first = (1 / slopes.abs().sum(1, keepdim=True)).clamp(max=1)  # (N, 1)
        length = self.rate * torch.where(self.begun, 1.0, first)
        moves = slopes.abs().amax(1, keepdim=True) > self.flat
        self.begun |= moves
        moves = moves & (_multiply(slopes, towards) <= -self.short)
        self.slopes, self.step = slopes, torch.where(moves, length * towards, 0.0)
        self.parameters += self.step.view_as(self.parameters)

    def _remember(self, change: Tensor, step: Tensor) -> None:
        """Add the latest step (N, P) and the change of slopes that it made."""
        product = _multiply(change, step)  # (N, 1)
        curved = product > self.straight
        self.scale = torch.where(curved, product / _multiply(change, change), self.scale)
        self.history = [*self.history, (change, step, torch.where(curved, 1 / product, 0.0))][-_HISTORY:]

    def _divide_by_curvature(self, values: Tensor) -> Tensor:
        """The values (N, P), divided by the curvature that the history shows: the two loops of L-BFGS."""
        shares = []
        for change, step, inverse in reversed(self.history):
            shares.append(_multiply(step, values) * inverse)
            values = values - shares[-1] * change
        values = values * self.scale
        for change, step, inverse in self.history:
            values = values + (shares.pop() - _multiply(change, values) * inverse) * step
        return values


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """The scalar product of each row of the one with that of the other: (N, 1) from (N, P)."""
    return (a * b).sum(1, keepdim=True)


OPTIMISERS: dict[str, Callable[[Tensor, float], Optimiser]] = {
    "adam": _Adam,
    "nadam": _NAdam,
    "ascent": _Steps,
    "lbfgs": _Lbfgs,
}
"""By name: from parameters (N, ...) and the length of a step."""
