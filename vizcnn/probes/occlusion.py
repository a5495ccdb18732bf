"""Occlusion: cover parts of an image and see what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from vizcnn.geometry import Box
from vizcnn.models.cost import Cost
from vizcnn.models.scoring import Scores
from vizcnn.occlusion import Case, Sweep, collect, estimate_cost
from vizcnn.occlusion.windows import (
    Windows,
    average_over_windows,
    check_fill,
    check_sides,
    make_baseline,
    parse_sides,
    place_windows,
)
from vizcnn.probing.attribution import find_peak
from vizcnn.probing.facts import Facts, require_reaction
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Mark, Provenance, format_number, format_score


class Occlusion(Probe[Heatmap]):
    """What happens to the answer when a part of the image is covered?

    A window slides over the image; each position is covered and the network runs again. The map's value at a pixel is
    the mean, over all windows that cover it, of clean score minus occluded score: positive (red) where covering hurts
    the target, negative (blue) where it helps. Windows at the right and bottom edge are clipped to the image; every
    pixel is covered. By default the part is blurred, which takes its detail and keeps its colours: a plain square is
    itself an object that networks react to. Equal to captum's Occlusion with the same windows, fill and target.

    The sentence and the box name what the map shows: the place around its highest value in which all values exceed four
    fifths of it. The single window that costs most is a second, lighter box: as the map averages over windows, the two
    can lie apart.

        >>> import vizcnn
        >>> model = vizcnn.load("tiny")
        >>> result = vizcnn.Occlusion(window=16, stride=8)(model, "sample:grace_hopper", target="military uniform")
        >>> result.values.shape
        (1, 1, 64, 64)

    Paper: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    Raises ParameterError, DegenerateResult (a target that no window moves), NonFiniteResult.
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    makes_maps: ClassVar[bool] = True
    needs_network: ClassVar[bool] = False

    window: int | tuple[int, int] | None = param(
        None,
        "Side of the covering square, or HEIGHTxWIDTH; by default a fifth of the input.",
        min=1,
        unit="px",
        parse=parse_sides,
    )
    stride: int | tuple[int, int] | None = param(
        None,
        "Distance between windows, or DOWNxACROSS; by default a fifth of the window.",
        min=1,
        unit="px",
        parse=parse_sides,
    )
    fill: str = param(
        "blur",
        "What covers: mean (of the image), model (the mean it was trained with), blur, or a colour such as #7f7f7f.",
    )
    batch: int | None = param(None, "Images per forward pass; by default chosen by their size.", min=1)
    engine: Literal["auto", "plain", "incremental"] = param(
        "auto",
        "plain runs the network in full for each window; incremental recomputes only what a window can touch, with the "
        "same result; auto takes whichever pays, checks it and falls back on any doubt.",
    )

    def check(self) -> None:
        check_fill("Occlusion: fill", self.fill)
        if self.window and self.stride:
            check_sides(_to_sides(self.window), _to_sides(self.stride))

    def rehearse(self, facts: Facts) -> str:
        return str(require_reaction(facts))

    def compute(self, subject: Subject) -> Heatmap:
        subject = subject.run()
        window, stride, sweep = self._make_sweep(subject)
        answers = collect(sweep, shown=subject.progress, strict=subject.strict)
        subject = subject.keep(answers)
        provenance = subject.provenance(
            window=window, stride=stride, windows=len(sweep.windows), fill=self.fill, **sweep.details
        )
        return _make_heatmap(subject, sweep.windows, answers.rows, provenance, answers.partial)

    def estimate_cost(self, subject: Subject) -> Cost:
        return estimate_cost(self._make_sweep(subject)[2])

    def _make_sweep(self, subject: Subject) -> tuple[tuple[int, int], tuple[int, int], Sweep]:
        """The window's sides, the stride, and the sweep, ready to run."""
        model, size = subject.model, subject.size
        window, stride = self._choose_sides(size)
        cases = [
            Case(
                name=photo.name,
                image=image,
                baseline=make_baseline(self.fill, image, model.input.mean, window),
                targets=targets,
                scores=scores,
                largest=subject.largest(i),
            )
            for i, (photo, image, targets, scores) in enumerate(
                zip(subject.photos, subject.inputs, subject.targets, subject.scores, strict=True)
            )
        ]
        windows = place_windows(size, window, stride)
        sweep = Sweep(model, cases, windows, batch=self.batch, engine=self.engine, layout=subject.layout)
        return window, stride, sweep

    def _choose_sides(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """The sides of the window, and the stride down and across."""
        window = _to_sides(self.window or max(1, round(min(size) / 5)))
        stride = _to_sides(self.stride) if self.stride else (max(1, window[0] // 5), max(1, window[1] // 5))
        return window, stride


def _to_sides(side: int | tuple[int, int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else side


def _make_heatmap(
    subject: Subject, windows: Windows, scores: list[Scores], provenance: Provenance, partial: bool
) -> Heatmap:
    maps, marks, windows_alone, findings = [], [], [], []
    for i, occluded in enumerate(scores):
        done = ~np.isnan(occluded[:, 0])  # after Ctrl-C, the windows that were not reached have no score
        drops = subject.scores[i] - occluded[done]  # (n, T)
        values = average_over_windows(windows[done], drops, subject.size)  # (T, H, W)
        places = [_find_peak(subject, i, one) for one in values]
        maps.append(values)
        marks.append(tuple(Mark(box, "covering here costs most") if box else None for box in places))
        windows_alone.append(
            tuple(
                _mark_window(subject, i, windows[done][own.argmax()].tolist(), float(own.max()), place)
                for own, place in zip(drops.T, places, strict=True)
            )
        )
        findings.append(
            tuple(
                _describe(subject, i, t, place, float(np.nanmax(values[t])), float(drops[:, t].max()))
                for t, place in enumerate(places)
            )
        )
    return Heatmap(
        provenance=provenance,
        values=np.stack(maps),  # (N, T, H, W)
        scores=subject.scores.astype(np.float32),
        meanings=tuple(f"{subject.quantity(t)} lost when covered" for t in range(len(subject.targets[0]))),
        photos=subject.photos,
        seen=subject.seen,
        predictions=subject.predictions(),
        marks=tuple(marks),
        findings=tuple(findings),
        partial=partial,
        second_marks=tuple(windows_alone),
        target_marks=subject.target_marks(),
    )


def _find_peak(subject: Subject, i: int, values: npt.NDArray[np.float32]) -> Box | None:
    """The tight place around the highest value of a map (H, W), in px of photograph i; None where none is positive."""
    place = find_peak(torch.from_numpy(values))
    return place and subject.in_photo(i, place)


def _mark_window(subject: Subject, i: int, window: Sequence[int], drop: float, place: Box | None) -> Mark | None:
    """The window that lowers the target most, with its drop. None where there is no such window, and where the map's
    own place is the same: the map averages over windows, so its highest value mostly lies elsewhere."""
    top, bottom, left, right = window
    box = subject.in_photo(i, Box(top, left, bottom, right))
    return Mark(box, f"this window alone: −{format_number(drop)}") if drop > 0 and box != place else None


def _describe(subject: Subject, i: int, t: int, place: Box | None, highest: float, drop: float) -> str:
    """One sentence: what was predicted, where the map of target t of image i is highest, and what is lost there.

    highest: the map's largest value, the mean drop there. drop: the largest of a single window."""
    quantity = subject.short_quantity(t)
    what, score = f"the {quantity}{subject.about(i, t)}", format_score(subject.scores[i, t], quantity)
    if place is None:
        return f"{subject.said(i)}covering no part lowers {what} ({score}){' on average' * (drop > 0)}"
    if subject.is_nearly_all(i, place):
        where = "covering costs much the same almost everywhere"
    elif subject.share(i, place) > 0.5:
        where = "covering costs most within the larger part of the image"
    else:
        where = f"covering the {subject.place(i, place)} costs most"
    return f"{subject.said(i)}{where}: {what} falls by {format_number(highest)} on average, from {score}"
