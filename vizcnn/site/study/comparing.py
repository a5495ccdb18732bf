"""Comparing: what an atlas says of another network that has looked at the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vizcnn.anatomy.changes import LEAST, Changes, compare_means
from vizcnn.site.comparison import Answers, Beside, Comparison
from vizcnn.site.records import Effect, Missing
from vizcnn.site.study.layers import find_zeros
from vizcnn.site.study.material import Material
from vizcnn.site.study.numbers import Numbers
from vizcnn.site.study.pairing import Pairing
from vizcnn.site.study.units import find_pictures, list_crops, rank_classes

SHOWN = 12
"""How many images the page shows that one of two networks alone names rightly."""

_OTHER_CLASSES = Missing("The two networks do not tell the same classes apart.")


@dataclass(frozen=True)
class Comparing:
    """See `vizcnn.site.comparison.Compared`.

    own: of the network whose atlas it is. other: of the other one, with its sites of the pairing; the same material
    where it is the same network."""

    own: Material
    other: Material
    pairing: Pairing

    @cached_property
    def _numbers(self) -> Numbers:
        return Numbers(self.other)

    @property
    def _is_same(self) -> bool:
        return self.other is self.own

    @property
    def _has_same_classes(self) -> bool:
        return self.own.output is not None and self.own.output in self.pairing.pairs

    @cached_property
    def comparison(self) -> Comparison:
        """Both networks at a glance."""
        own, other = tell_apart(self.own, self.other)
        layers = {} if self._is_same else {i: self._measure(i) for i in self.pairing.pairs}
        return Comparison(
            own=own,
            other=other,
            weights=self.other.model.weights_sha256(),
            is_same=self._is_same,
            images=len(self._sample(next(iter(self.pairing.pairs)))[0]) if layers else 0,
            accuracy=self.other.accuracy,
            layers=layers,
            left_out=self.pairing.left_out,
            answers=self._compare_answers(),
        )

    def _sample(self, i: int) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
        """What a site gives on average for the images of both samples, (n, C) in this network and in the other."""
        own, other = self.own.study(i), self.other.study(self.pairing.pairs[i])
        _, here, there = np.intersect1d(own.numbers.numpy(), other.numbers.numpy(), return_indices=True)
        return own.means.numpy()[here], other.means.numpy()[there]

    def _measure(self, i: int) -> Changes | Missing:
        own, other = self._sample(i)
        if len(own) < LEAST:
            return Missing(f"It takes {LEAST} images in the sample of both scans, and there are {len(own)}.")
        return compare_means(own, other)

    # --------------------------------------------------------------------------------------------------------- answers

    def _compare_answers(self) -> Answers | Missing:
        if not self._has_same_classes:
            return Missing(self.own.no_answer) if self.own.output is None else _OTHER_CLASSES
        labels, now, before = self.own.labels, self.own.predicted, self.other.predicted
        answered = (now >= 0) & (before >= 0)
        if not answered.any():
            return Missing("No image has an answer of both networks.")
        known = answered & (labels >= 0)
        is_gained = known & (now == labels) & (before != labels)
        is_lost = known & (now != labels) & (before == labels)
        return Answers(
            agree=float((now == before)[answered].mean()),
            classes=self._count_classes(labels, now, before, known) if known.any() else self.own.no_labels,
            gained=int(is_gained.sum()),
            lost=int(is_lost.sum()),
            gained_shown=_choose_surest(is_gained, self.own, before),
            lost_shown=_choose_surest(is_lost, self.other, now),
        )

    def _count_classes(
        self,
        labels: npt.NDArray[np.int64],
        now: npt.NDArray[np.int64],
        before: npt.NDArray[np.int64],
        known: npt.NDArray[np.bool_],
    ) -> tuple[tuple[int, int, int, int], ...]:
        numbers = np.unique(labels[known]).tolist()
        own = {c: known & (labels == c) for c in numbers}
        return tuple(
            (c, int(own[c].sum()), int((own[c] & (before == c)).sum()), int((own[c] & (now == c)).sum()))
            for c in numbers
        )

    # ----------------------------------------------------------------------------------------------------------- units

    def units(self, layer: int) -> Iterator[Beside]:
        """The units of a layer of the other network, in order."""
        other, j = self.other, self.pairing.pairs[layer]
        pictures, means, zeros = find_pictures(other, j), other.class_means(j), find_zeros(other, j)
        tally = other.tally(j)
        for unit in range(other.site(j).shape[0]):
            classes, overall = rank_classes(other, means[unit])
            yield Beside(
                crops=tuple(list_crops(other, j, unit)),
                picture=pictures[unit],
                mean=float(tally.mean[unit]),
                highest=float(tally.highest[unit]),
                zeros=Missing("") if np.isnan(zeros[unit]) else float(zeros[unit]),
                classes=classes if self._has_same_classes else _OTHER_CLASSES,
                overall=overall,
                effect=self._find_effect(j, unit),
            )

    def _find_effect(self, j: int, unit: int) -> Effect | Missing:
        """Without single classes, of which there are too few images to compare two lists of them."""
        found = self._numbers.find_effect(j, unit)
        return found if isinstance(found, Missing) else replace(found, by_class=())


def _choose_surest(
    among: npt.NDArray[np.bool_], right: Material, wrong: npt.NDArray[np.int64]
) -> tuple[tuple[int, int], ...]:
    """Some of these images with a network's wrong answer, the surest of the one that is right first."""
    chosen = np.flatnonzero(among)
    order = np.argsort(-np.nan_to_num(right.probabilities[chosen]), kind="stable")
    return tuple((int(n), int(wrong[n])) for n in chosen[order][:SHOWN])


def tell_apart(own: Material, other: Material) -> tuple[str, str]:
    """What two networks are called where they stand side by side: names that are never the same, without what both
    begin with."""
    names = own.model.name, other.model.name
    if names[0] == names[1]:
        return f"{names[0]} (this one)", f"{names[1]} (the other)"
    (start, _, end), (its_start, _, its_end) = (name.partition("@") for name in names)
    if start != its_start or not (end and its_end):
        return names
    stems = Path(end).stem, Path(its_end).stem
    return stems if stems[0] != stems[1] else (end, its_end)
