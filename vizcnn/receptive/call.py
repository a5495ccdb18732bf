"""Call: one operation of a network, as the rules of receptive fields see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vizcnn.graph.geometry import name_operation
from vizcnn.receptive.bounds import Bounds


class NoRuleError(Exception):
    """There is no exact rule for this operation, or for one before it: the fields are then measured."""


@dataclass(frozen=True)
class Call:
    """One operation of a running network: what it was called with, and the bounds of its inputs.

    args: all arguments by name, defaults included. shape: of the first output.
    look_up: from a tensor among the arguments to its bounds; raises NoRuleError where they are not known.
    """

    func: Any
    args: dict[str, Any]
    shape: tuple[int, ...]
    look_up: Callable[[Tensor], Bounds]

    @property
    def name(self) -> str:
        return name_operation(self.func)

    def find_bounds(self, argument: str) -> Bounds:
        """The bounds of the argument of this name, a tensor."""
        return self.look_up(self.args[argument])


Rule = Callable[[Call], Bounds | list[Bounds]]
"""From a call to the bounds of its output, or of each of its outputs."""
