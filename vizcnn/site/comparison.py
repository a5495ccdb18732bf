"""What an atlas says of two networks side by side, as numbers: records beside those of `vizcnn.site.records`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vizcnn.anatomy.changes import Changes
from vizcnn.site.records import Crop, Effect, Missing, Picture


@dataclass(frozen=True)
class Answers:
    """What two networks answer to the same images.

    agree: the share of images that both give the same answer. classes: each class with its number of images, how many
    of them the other network names rightly, and how many this one; Missing without labels. gained, lost: how many
    images this network alone names rightly, and how many the other one alone; shown: some of each with the wrong answer
    of the one that does not, the surest right answers first."""

    agree: float
    classes: tuple[tuple[int, int, int, int], ...] | Missing
    gained: int = 0
    lost: int = 0
    gained_shown: tuple[tuple[int, int], ...] = ()
    lost_shown: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two networks that have looked at the same images: this one, whose atlas it is, and another.

    own, other: what they are called where they stand side by side. weights: the digest of the other's weights. is_same:
    whether it is the same network, of which nothing more is said. images: on how many the change was measured.
    accuracy: the other's, from 0 to 1. layers: by the number of the layer how its units differ. left_out: the names of
    layers that cannot be compared, with the reason. answers: what becomes of them."""

    own: str
    other: str
    weights: str
    is_same: bool
    images: int
    accuracy: float | Missing
    layers: Mapping[int, Changes | Missing]
    left_out: tuple[tuple[str, str], ...]
    answers: Answers | Missing

    def describe(self) -> str:
        """What was compared, in a sentence."""
        if self.is_same:
            return f"compared with {self.other}: the same weights, so nothing differs"
        units = sum(len(found.change) for found in self.layers.values() if isinstance(found, Changes))
        without = f"; {_count(len(self.left_out), 'layer')} cannot be compared, see #/changes" if self.left_out else ""
        return f"compared with {self.other}: {_count(units, 'unit')} in {_count(len(self.layers), 'layer')}{without}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Beside:
    """What the page of a unit shows of the unit of the same number in the other network.

    Its parts are those of `vizcnn.site.records.Unit`; classes, those of this atlas."""

    crops: tuple[Crop, ...]
    picture: Picture | Missing
    mean: float
    highest: float
    zeros: float | Missing
    classes: tuple[tuple[int, float], ...] | Missing
    overall: float | Missing
    effect: Effect | Missing


class Compared(Protocol):
    """All that an atlas shows of another network, asked for like `vizcnn.site.records.Records`."""

    @property
    def comparison(self) -> Comparison: ...

    def units(self, layer: int) -> Iterable[Beside]:
        """The units of a layer in order. Asked for the layers of the comparison alone, and not for the output."""
