"""Call: one operation of a network, as the rules of receptive fields see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vizcnn.graph.geometry import name_operation
from vizcnn.receptive.bounds import Bounds


class Unknown(Exception):  # noqa: N818 - no failure: the fields are then measured
    """There is no exact rule for this operation, or for one that came before."""


@dataclass(frozen=True)
class Call:
    """An operation with all its arguments by name, its first output's shape, and where to look up bounds."""

    func: Any
    args: dict[str, Any]
    shape: tuple[int, ...]
    look: Callable[[Tensor], Bounds]

    @property
    def name(self) -> str:
        return name_operation(self.func)

    def of(self, argument: str) -> Bounds:
        """The bounds of a tensor argument."""
        return self.look(self.args[argument])


Rule = Callable[[Call], Bounds | list[Bounds]]
