"""The state of an ascent: everything that changes from step to step, so that one can come back to it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vizcnn.ascent.optimisers import Optimiser

T = TypeVar("T")


class Best:
    """Each picture's best state so far.

    pictures: (N, C, H, W). heights: (N,), their targets less their penalties."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures.clone()
        self.heights = pictures.new_full((len(pictures),), -torch.inf)

    def see(self, pictures: Tensor, heights: Tensor) -> None:
        better = heights > self.heights  # (N,)
        self.pictures = torch.where(better.view(-1, 1, 1, 1), pictures.detach(), self.pictures)
        self.heights = torch.where(better, heights.to(self.heights), self.heights)


@dataclass
class State:
    """What changes from step to step, of N pictures.

    optimiser: holds their parameters. moved: bool (N,), whether the target ever responded. failed_redirections: int64
    (N,), gradients that were redirected in vain. best: of a recipe that keeps the best state."""

    optimiser: Optimiser
    moved: Tensor
    failed_redirections: Tensor
    best: Best | None = None

    @classmethod
    def begin(cls, optimiser: Optimiser) -> State:
        none = torch.zeros(len(optimiser.parameters), dtype=torch.bool, device=optimiser.parameters.device)
        return cls(optimiser, none, none.long())

    @property
    def parameters(self) -> Tensor:
        """Of the pictures, (N, ...)."""
        return self.optimiser.parameters

    def copy(self) -> State:
        """A state that stays as it is while this one goes on."""
        twin = _copy(self)
        twin.optimiser, twin.best = _copy(self.optimiser), _copy(self.best)
        return twin


def _copy(one: T) -> T:
    """A copy with tensors of its own. Lists are shared: an optimiser makes a new one in each step."""
    twin = copy.copy(one)
    for name, value in getattr(one, "__dict__", {}).items():
        if isinstance(value, Tensor):
            setattr(twin, name, value.clone())
    return twin
