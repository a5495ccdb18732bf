"""A made-up network beside the made-up one of an atlas: what its pages say of two networks, for tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from atlas_records import MadeUp

from vizcnn.anatomy.changes import Changes
from vizcnn.site.comparison import Answers, Beside, Comparison
from vizcnn.site.records import Effect, Missing


@dataclass(frozen=True)
class MadeUpOther:
    """Of a made-up network: all its layers, each unit most like the one of its number but unit 2, which is not.

    silent: the units that give the same for all images in both networks."""

    records: MadeUp = field(default_factory=MadeUp)
    silent: int = 5

    @cached_property
    def comparison(self) -> Comparison:
        layers = {i: self._change(i) for i in range(len(self.records.network.layers))}
        classes = tuple((c, 5, c % 4, 3) for c in range(self.records.classes_))
        answers = Answers(0.75, classes, 9, 3, ((0, 3), (13, 2)), ((7, 1),))
        return Comparison(
            "step 469", "step 67", "f" * 64, False, self.records.images_, 0.4, layers, (), answers
        )  # fmt: skip

    def _change(self, i: int) -> Changes:
        count = self.records.network.layers[i].shape[0]
        change = ((np.arange(count) * 37 + i) % 101 / 75).astype(np.float32)
        nearest, likeness = np.arange(count), (1 - change / 2).astype(np.float32)
        nearest[2] = 0
        if count > self.silent:
            change[self.silent], nearest[self.silent], likeness[self.silent] = 0, -1, np.nan
        return Changes(change, nearest, likeness)

    def units(self, layer: int) -> Iterator[Beside]:
        for unit in self.records.units(layer):
            effect = unit.effect
            yield Beside(
                crops=unit.crops[::-1],
                picture=unit.picture,
                mean=unit.mean / 2,
                highest=unit.highest / 2,
                zeros=unit.zeros,
                classes=unit.classes,
                overall=unit.overall,
                effect=replace(effect, by_class=()) if isinstance(effect, Effect) else effect,
            )


@dataclass(frozen=True)
class Different(MadeUpOther):
    """Of which little can be compared, with names that are hostile. hostile: markup."""

    hostile: str = "nothing"

    @cached_property
    def comparison(self) -> Comparison:
        names = [layer.name for layer in self.records.network.layers]
        nothing = Missing("It takes 3 images in the sample of both scans, and there are 2.")
        left = tuple((name, f"{self.hostile} has no such layer") for name in names[2:])
        return Comparison(
            self.hostile, f"other {self.hostile}", self.hostile, False, 2, Missing("The images have no labels."),
            {0: nothing, 1: self._shift(1)}, left, Missing(f"The two networks do not tell {self.hostile} apart."),
        )  # fmt: skip

    def _shift(self, i: int) -> Changes:
        """Each unit is most like the next one."""
        plain = self._change(i)
        return replace(plain, nearest=np.roll(np.arange(len(plain.change)), -1))

    def units(self, layer: int) -> Iterator[Beside]:
        nothing = Missing(f"Nobody has measured {self.hostile}.")
        for unit in super().units(layer):
            yield replace(unit, picture=nothing, zeros=nothing, classes=nothing, overall=nothing, effect=nothing)


@dataclass(frozen=True)
class Same(MadeUpOther):
    """Of the same network."""

    @cached_property
    def comparison(self) -> Comparison:
        plain = super().comparison
        return replace(plain, is_same=True, layers={}, answers=self._agree(plain))

    @staticmethod
    def _agree(plain: Comparison) -> Answers:
        assert isinstance(plain.answers, Answers)
        return replace(plain.answers, agree=1, gained=0, lost=0, gained_shown=(), lost_shown=())
