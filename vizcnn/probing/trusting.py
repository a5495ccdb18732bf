"""Trusting: maps, and for each of them how far it can be believed.

The maps of another class are made together with those that were asked for, so that methods which show the network many
altered copies of an image show them once for both. They are judged and dropped.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from vizcnn.errors import DegenerateResult, NonFiniteResult, VizcnnWarning
from vizcnn.evaluation.contrast import choose_contrast
from vizcnn.evaluation.coverings import GRID, HALVES, Coverings, cover_image
from vizcnn.evaluation.judging import excuse_likeness, judge_map
from vizcnn.models.batches import default_batch
from vizcnn.models.cost import Cost
from vizcnn.models.determinism import score_images
from vizcnn.models.targets import Target
from vizcnn.occlusion.incremental import Engine, Untraceable, count_flops, record
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Projections, Result, Trust

R_co = TypeVar("R_co", bound=Result, covariant=True)
R = TypeVar("R", bound=Result)
Judged = Heatmap | Projections
Map = npt.NDArray[np.float32]


class MapMaker(Protocol[R_co]):
    """The members of a `vizcnn.Probe` that trust is asked of. The module of that class imports this one."""

    def compute(self, subject: Subject) -> R_co: ...

    def choose_explained(self, subject: Subject) -> Sequence[Sequence[Target]]: ...

    def measure_missing(self, subject: Subject, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None: ...

    def estimate_cost(self, subject: Subject) -> Cost | None: ...


def compute_with_trust(probe: MapMaker[R], subject: Subject) -> R:
    """The probe's result with `trust` filled in: for each map a Trust, or None with a warning that says why.

    Where Ctrl-C came before all maps were made and judged, none is judged, and the result is partial."""
    subject = subject.run()  # another class is chosen by the outputs
    with_others = _WithOthers(probe, subject)
    result = with_others.result
    if not isinstance(result, Judged):
        raise TypeError(f"a probe with makes_maps returns a Heatmap, got {type(result).__name__}")
    if not result.partial:
        try:
            result = replace(result, trust=_judge(probe, with_others, result))
        except KeyboardInterrupt:
            result = replace(result, partial=True)
    if result.partial:
        _warn("the call was interrupted before it was known how far the maps can be believed")
    return cast(R, result)


@dataclass(frozen=True)
class _Other:
    """The map of another class, (H, W), or None; that class; and what is to be said of the map, or why there is
    none."""

    values: Map | None
    target: str = ""
    note: str = ""


class _WithOthers:
    """The maps that were asked for, and for each the map of another class, if there is one."""

    def __init__(self, probe: MapMaker[Any], subject: Subject) -> None:
        self.probe, self.subject, self.count = probe, subject, len(subject.targets[0])
        outputs = [None] * len(subject.photos) if subject.output is None else subject.output
        self.others = [
            [choose_contrast(subject.model, each, output) for each in row]
            for row, output in zip(subject.targets, outputs, strict=True)
        ]

    @property
    def has_two_classes(self) -> bool:
        output = self.subject.output
        return output is not None and output.shape[1:] == (2,)

    @cached_property
    def asked(self) -> list[int]:
        """The targets, by number, that have another class to compare with, in each image."""
        return [t for t in range(self.count) if all(isinstance(row[t], Target) for row in self.others)]

    @cached_property
    def together(self) -> Judged | None:
        """The maps of the targets and, behind them, of other classes; None where no image has all of these."""
        more = [[other for t in self.asked if isinstance(other := row[t], Target)] for row in self.others]
        subject = replace(self.subject.add_targets(more), strict=False) if self.asked else self.subject
        try:
            return cast(Judged, self.probe.compute(subject))
        except (DegenerateResult, NonFiniteResult):
            if not self.asked:
                raise
            return None

    @cached_property
    def result(self) -> Any:
        """What the call asks for. Where all of it is among what was made together, it is not made again."""
        made = self.together
        if not self.asked:
            return made
        if isinstance(made, Heatmap) and (made.partial or len(made.photos) == len(self.subject.photos)):
            return made.select_targets(range(self.count))
        if made is not None and made.partial:  # no Heatmap, of which the maps that were asked for could be kept
            raise KeyboardInterrupt
        return self.probe.compute(self.subject)

    @cached_property
    def _rows(self) -> dict[int, int]:
        """For each image of which maps were made together its row among these."""
        return {} if self.together is None else {i: row for row, i in enumerate(_locate(self.together, self.subject))}

    def find_other(self, i: int, t: int) -> _Other:
        """The map to compare with that of image i for target t."""
        other = self.others[i][t]
        if isinstance(other, str):
            return _Other(None, note=other)
        if t in self.asked and i in self._rows and self.together is not None:
            return _Other(self.together.list_maps(self._rows[i])[self.count + self.asked.index(t)], str(other))
        return self._make_alone(i, other)

    def _make_alone(self, i: int, other: Target) -> _Other:
        """The map of another class for image i, which may be the reason why the image had no maps together."""
        subject = replace(self.subject.select([i]).add_targets([[other]]), strict=False)
        try:
            made = cast(Judged, self.probe.compute(subject))
        except NonFiniteResult as error:
            return _Other(None, str(other), str(error))
        except DegenerateResult:
            if isinstance(self.result, Projections):  # of a unit that is not active there is no projection
                return _Other(None, str(other), f"there is nothing of {other} to project")
            return _Other(np.zeros(subject.size, np.float32), str(other), "zero everywhere")
        if made.partial:
            raise KeyboardInterrupt
        return _Other(made.list_maps(0)[-1], str(other))


def _locate(result: Result, subject: Subject) -> list[int]:
    """Which image of the subject, by number, each image of a result is."""
    known, found, start = [(photo.name, photo.sha256()) for photo in subject.photos], list[int](), 0
    for image in result.provenance.images:
        found.append(known.index(image, start))
        start = found[-1] + 1
    return found


def _judge(probe: MapMaker[Any], made: _WithOthers, result: Judged) -> tuple[tuple[Trust | None, ...], ...]:
    """How far each map can be believed; None with a warning where that cannot be said."""
    numbers = _locate(result, made.subject)
    subject = made.subject.select(numbers)
    explained = probe.choose_explained(subject)
    missing = probe.measure_missing(subject, result.values) if isinstance(result, Heatmap) else None
    reasons = dict[str, str]()
    rows = []
    for row, i in enumerate(numbers):
        others = [made.find_other(i, t) for t in range(made.count)]
        found = _judge_image(subject, row, explained[row], result.list_maps(row), others)
        if made.has_two_classes and isinstance(result, Heatmap) and not result.signed:
            found = [one if isinstance(one, str) else excuse_likeness(one) for one in found]
        for target, one in zip(explained[row], found, strict=True):
            if isinstance(one, str):
                reasons.setdefault(one, f"the map of {target} for {subject.photos[row].name}")
        trusts = [None if isinstance(one, str) else one for one in found]
        rows.append(tuple(trusts if missing is None else map(_add_missing, trusts, missing[row])))
    for reason, what in reasons.items():
        _warn(f"{what} is not judged: {reason}")
    return tuple(rows)


def _judge_image(
    subject: Subject, i: int, targets: Sequence[Target], maps: Sequence[Map], others: Sequence[_Other]
) -> list[Trust | str]:
    """How far each map of image i can be believed, or why that cannot be said."""
    image = subject.inputs[i]  # (C, H, W)
    scores = subject.scores[i]  # (T,)
    if [*targets] != [*subject.targets[i]]:
        with torch.no_grad():
            scores = score_images(subject.model, image[None], targets)[0].double().cpu().numpy()
    try:
        coverings = cover_image(
            subject.model,
            image,
            targets,
            scores,
            largest=subject.largest(i),
            seed=subject.seed,
            layout=subject.layout,
            shown=subject.progress,
        )
    except NonFiniteResult as error:
        return [str(error)] * len(maps)
    return [
        _judge_one(own, coverings, t, other, subject.seed)
        for t, (own, other) in enumerate(zip(maps, others, strict=True))
    ]


def _judge_one(values: Map, coverings: Coverings, t: int, other: _Other, seed: int) -> Trust | str:
    try:
        return judge_map(
            values,
            coverings,
            t,
            contrast=other.values,
            contrast_target=other.target,
            contrast_note=other.note,
            seed=seed,
        )
    except (DegenerateResult, NonFiniteResult) as error:
        return str(error)


def _add_missing(trust: Trust | None, share: float) -> Trust | None:
    return replace(trust, missing=float(share)) if trust and np.isfinite(share) else trust


def _warn(text: str) -> None:
    warnings.warn(text, VizcnnWarning, stacklevel=4)


@torch.no_grad()
def estimate_with_trust(probe: MapMaker[Any], subject: Subject) -> Cost | None:
    """What the probe would cost with trust: the runs behind coverings are full ones. Maps of other classes cost nothing
    more, for probes that say what they cost: these score all targets of an image in one run."""
    cost = probe.estimate_cost(subject)
    if cost is None:
        return None
    height, width = subject.size
    runs = (min(GRID, height) * min(GRID, width) + HALVES) * len(subject.inputs)
    copies = subject.inputs[:1].expand(default_batch(subject.size, subject.inputs.device), -1, -1, -1)
    start = time.perf_counter()
    score_images(subject.model, copies.contiguous(memory_format=subject.layout), subject.targets[0])
    seconds = (time.perf_counter() - start) / len(copies)
    flops = None if cost.flops is None else _count_flops(subject)
    return Cost(
        work=f"{cost.work}, and {runs} full runs for trust",
        flops=None if cost.flops is None or flops is None else cost.flops + flops * runs,
        memory=cost.memory,
        seconds=cost.seconds + seconds * runs,
    )


def _count_flops(subject: Subject) -> int | None:
    """FLOPs of one full run; None where the network cannot be followed."""
    layers = frozenset[str]().union(*(each.layers for each in subject.targets[0]))
    try:
        return count_flops(Engine(record(subject.model, subject.size, layers)))
    except Untraceable:
        return None
