"""Occlusion: cover parts of an image and see what that costs."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from vizcnn.geometry import Box
from vizcnn.models.cost import Cost
from vizcnn.models.scoring import Scores, default_batch
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
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Mark, Provenance


class Occlusion(Probe[Heatmap]):
    """What happens to the answer when a part of the image is covered?

    A window slides over the image; each position is covered and the network runs again. The map's value at a pixel is
    the mean, over all windows that cover it, of clean score minus occluded score: positive (red) where covering hurts
    the target, negative (blue) where it helps. Windows at the right and bottom edge are clipped to the image; every
    pixel is covered. By default the part is blurred, which takes its detail and keeps its colours: a plain square is
    itself an object that networks react to. Equal to captum's Occlusion with the same windows, fill and target.

    Paper: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    Raises ParameterError, DegenerateResult (a target that no window moves), NonFiniteResult.
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"

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

    def compute(self, subject: Subject) -> Heatmap:
        window, stride, sweep = self._make_sweep(subject)
        scores, partial = collect(sweep, shown=subject.progress)
        subject = subject.first(len(scores))
        provenance = subject.provenance(
            window=window, stride=stride, windows=len(sweep.windows), fill=self.fill, **sweep.details
        )
        return _make_heatmap(subject, sweep.windows, scores, provenance, partial)

    def estimate_cost(self, subject: Subject) -> Cost:
        return estimate_cost(self._make_sweep(subject)[2])

    def _make_sweep(self, subject: Subject) -> tuple[tuple[int, int], tuple[int, int], Sweep]:
        """The window's sides, the stride, and the sweep, ready to run."""
        model, size = subject.model, (int(subject.inputs.shape[2]), int(subject.inputs.shape[3]))
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
        windows, batch = place_windows(size, window, stride), self.batch or default_batch(size)
        return window, stride, Sweep(model, cases, windows, batch=batch, engine=self.engine, layout=subject.layout)

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
    maps, marks, findings = [], [], []
    for i, occluded in enumerate(scores):
        done = ~np.isnan(occluded[:, 0])  # after Ctrl-C, the windows that were not reached have no score
        drops = subject.scores[i] - occluded[done]  # (n, T)
        maps.append(average_over_windows(windows[done], drops, (subject.inputs.shape[2], subject.inputs.shape[3])))
        worst = windows[done][drops.argmax(0)].tolist()  # for each target the window that lowers it most
        boxes = [subject.in_photo(i, Box(top, left, bottom, right)) for top, bottom, left, right in worst]
        largest = drops.max(0).tolist()  # (T,)
        marks.append(
            tuple(
                Mark(box, f"this window alone: {drop:.3g} lost") if drop > 0 else None
                for box, drop in zip(boxes, largest, strict=True)
            )
        )
        findings.append(
            tuple(_describe(subject, i, t, box, drop) for t, (box, drop) in enumerate(zip(boxes, largest, strict=True)))
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
    )


def _describe(subject: Subject, i: int, t: int, box: Box, drop: float) -> str:
    """One sentence: what was predicted, which window lowers target t of image i most, and by how much."""
    what, score = f"the {subject.quantity(t).split(' of ')[0]}{subject.about(i, t)}", subject.scores[i, t]
    if drop <= 0:
        return f"{subject.said(i)}covering no part lowers {what} ({score:.3g})"
    place = subject.place(i, box)
    return f"{subject.said(i)}covering the {place} costs most: {what} falls by {drop:.3g}, from {score:.3g}"
